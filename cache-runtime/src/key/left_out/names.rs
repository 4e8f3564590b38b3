//! Names of fields and variants, in any convention.

/// The name that a variant of this tag usually has: `user_id`, `userId` and `USER-ID` are `UserId`.
/// There is one for each tag, so two variants never have the same.
pub(super) fn usual_name(tag: &str) -> String {
    let is_upper = !tag.contains(char::is_lowercase);
    let mut is_first = true;
    let mut name = String::new();
    for c in tag.chars() {
        match c {
            '_' | '-' => is_first = true,
            _ if std::mem::take(&mut is_first) => name.extend(c.to_uppercase()),
            _ if is_upper => name.extend(c.to_lowercase()),
            _ => name.push(c),
        }
    }
    name
}

/// A name without punctuation and in lower case, to compare names in any convention.
pub(super) fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}
