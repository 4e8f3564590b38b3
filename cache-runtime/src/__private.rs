//! Everything that generated code may name. Nothing here is for people, and nothing follows
//! semantic versioning.

pub use crate::call::each::each;
pub use crate::call::read::{Batch, LoadContext, Read, ReadPlan};
pub use crate::call::tag::part;
pub use crate::call::write::{Write, WritePlan};
pub use crate::integrations::settled::{
    CommitsByItself, Holds, ReadsWhatIsCommitted, through, through_type,
};
pub use crate::key::{Argument, argument};
use crate::registry::Role;
#[cfg(feature = "map")]
pub use crate::registry::SITES;
pub use crate::registry::Site;
pub use crate::shape::{BatchShape, Shape};

/// Stands for the configured time.
pub const AS_CONFIGURED: Option<std::time::Duration> = None;

/// Makes the owned form of an argument, for a load that may outlive its caller.
pub fn owned<T: Keep + ?Sized>(value: &T) -> T::Kept {
    value.keep()
}

/// An argument that a load can keep when it outlives its caller.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be kept by a load that may outlive its caller",
    label = "borrowed here",
    note = "with `swr` or `timeout` the load may go on in the background: derive `Clone` for `{Self}`, or take it by value"
)]
pub trait Keep {
    /// The owned form.
    type Kept: Send + Sync + 'static;

    /// Makes the owned form.
    fn keep(&self) -> Self::Kept;
}

#[diagnostic::do_not_recommend]
impl<T: ToOwned<Owned: Send + Sync + 'static> + ?Sized> Keep for T {
    type Kept = T::Owned;

    fn keep(&self) -> T::Owned {
        self.to_owned()
    }
}

/// The site of a function under `#[cached]`, at the caller's source location. `description` is the
/// description for the catalog. The name of the closure's type says how the function is declared.
#[must_use]
#[track_caller]
pub const fn cached<D: Copy>(function: &'static str, description: &'static str, _: D) -> Site {
    Site::new(Role::Reads, function, description).declared(std::any::type_name::<D>)
}

/// The site of a function under `#[invalidates]`.
#[must_use]
#[track_caller]
pub const fn invalidates(function: &'static str, description: &'static str) -> Site {
    Site::new(Role::Writes, function, description)
}

/// The codecs that `codec = ".."` may name.
#[expect(
    non_upper_case_globals,
    reason = "spelled as the attribute spells them"
)]
pub mod codec {
    // Exported even if no codec is left out, since tests name it.
    pub use crate::protocol::codec::NotBuiltIn;
    use crate::protocol::codec_id::CodecId;

    pub const json: CodecId = CodecId::Json;
    #[cfg(feature = "zstd")]
    pub const json_zstd: CodecId = CodecId::JsonZstd;
    #[cfg(not(feature = "zstd"))]
    pub const json_zstd: NotBuiltIn = NotBuiltIn;
    #[cfg(feature = "msgpack")]
    pub const msgpack: CodecId = CodecId::MsgPack;
    #[cfg(not(feature = "msgpack"))]
    pub const msgpack: NotBuiltIn = NotBuiltIn;
    #[cfg(feature = "postcard")]
    pub const postcard: CodecId = CodecId::Postcard;
    #[cfg(not(feature = "postcard"))]
    pub const postcard: NotBuiltIn = NotBuiltIn;
}
