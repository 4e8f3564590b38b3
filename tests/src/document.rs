//! Figures in documents, written by the program that made them.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the documents.
#[must_use]
pub fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Replaces what stands in `file` between `<!-- name -->` and `<!-- end of name -->`.
///
/// # Panics
///
/// When the file can't be read or written, or has no such place.
pub fn write_section(file: &Path, name: &str, text: &str) {
    let old = fs::read_to_string(file)
        .unwrap_or_else(|error| panic!("{} can't be read: {error}", file.display()));
    let new = with_section(&old, name, text)
        .unwrap_or_else(|| panic!("{} has no section `{name}`", file.display()));
    fs::write(file, new)
        .unwrap_or_else(|error| panic!("{} can't be written: {error}", file.display()));
}

fn with_section(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- {name} -->"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    let text = text.trim();
    Some(format!("{before}{begin}\n\n{text}\n\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_rest_stays() {
        let old = "a\n<!-- b -->\nold\n<!-- end of b -->\nc\n";
        let new = "a\n<!-- b -->\n\nnew\n\n<!-- end of b -->\nc\n";
        assert_eq!(with_section(old, "b", "new\n").as_deref(), Some(new));
        assert_eq!(with_section(new, "b", "new").as_deref(), Some(new));
        assert_eq!(with_section(old, "c", "new"), None);
    }
}
