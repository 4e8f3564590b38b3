//! Mistakes that the compiler finds in what the attributes have written.

mod argument_without_a_key;
mod batch_by_other_ids;
mod batch_of_what_cannot_be_cached;
mod batch_that_returns_a_list;
mod batch_that_returns_one;
mod boxed_body_of_another_type;
mod boxed_result_that_cannot_be_cached;
mod codec_that_is_not_built_in;
mod encoded_of_what_cannot_be_encoded;
mod key_of_another_type;
mod mistakes_in_expressions;
mod mistakes_in_the_body;
mod pointer_to_what_cannot_be_cached;
mod rejected_that_is_no_closure;
mod rejected_without_a_result;
mod result_that_cannot_be_cached;
mod swr_of_what_cannot_be_kept;
mod tag_that_cannot_be_written;
mod ttl_that_is_none;
mod unless_of_another_type;
mod unless_that_answers_nothing;
mod unless_that_is_no_closure;
mod when_that_is_no_bool;
