//! Parses a function's description, which the macros write: `users:{id: i64}, ttl 300`. Text in
//! braces is known only at run time, and commas inside braces don't separate.

/// One item of a description.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DescriptionItem {
    /// `users`, `users:list`, `users:{id: i64}`
    Name {
        resource: String,
        rest: Option<String>,
    },
    /// `op list`, of the name before it
    Op(String),
    Ttl(String),
    Depends(String),
    Tag(String),
    Shared,
    Batch,
    CrashSafe,
}

pub(super) fn read(description: &str) -> Vec<DescriptionItem> {
    outside_braces(description, ',')
        .into_iter()
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| match word.split_once(' ') {
            Some(("ttl", ttl)) => DescriptionItem::Ttl(ttl.to_owned()),
            Some(("op", op)) => DescriptionItem::Op(op.to_owned()),
            Some(("depends", name)) => {
                let resource = outside_braces(name, ':').into_iter().next();
                DescriptionItem::Depends(resource.unwrap_or_default().to_owned())
            }
            Some(("tag", tag)) => DescriptionItem::Tag(tag.replace("%2C", ",")),
            Some(("crash", "safe")) => DescriptionItem::CrashSafe,
            Some(("keys", "shared")) => DescriptionItem::Shared,
            Some(("a", "batch")) => DescriptionItem::Batch,
            _ => {
                let mut parts = outside_braces(word, ':').into_iter();
                let resource = parts.next().unwrap_or_default();
                let rest = word.get(resource.len() + 1..);
                DescriptionItem::Name {
                    resource: resource.to_owned(),
                    rest: rest.map(str::to_owned),
                }
            }
        })
        .collect()
}

/// Blanks the text in braces: `team:{}` for `team:{self.team}`. If two blanked texts differ, their
/// keys or tags never meet.
pub(crate) fn blanked(text: &str) -> String {
    let (mut out, mut depth) = (String::new(), 0u32);
    for letter in text.chars() {
        match letter {
            '}' => depth = depth.saturating_sub(1),
            '{' => depth += 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && letter == '{') {
            out.push(letter);
        }
    }
    out
}

fn outside_braces(text: &str, separator: char) -> Vec<&str> {
    let mut depth = 0u32;
    text.split(|letter| {
        match letter {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && letter == separator
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(resource: &str, rest: &str) -> DescriptionItem {
        DescriptionItem::Name {
            resource: resource.into(),
            rest: (!rest.is_empty()).then(|| rest.into()),
        }
    }

    #[test]
    fn words_are_told_apart() {
        assert_eq!(
            read(
                "users:{(self.tenant, id)}, ttl 300, depends teams, tag t:{a::b(1, 2)}%2Cx, keys shared"
            ),
            [
                name("users", "{(self.tenant, id)}"),
                DescriptionItem::Ttl("300".into()),
                DescriptionItem::Depends("teams".into()),
                DescriptionItem::Tag("t:{a::b(1, 2)},x".into()),
                DescriptionItem::Shared,
            ]
        );
        assert_eq!(
            read("{R::RESOURCE}:filter:{id: i64}, a batch"),
            [
                name("{R::RESOURCE}", "filter:{id: i64}"),
                DescriptionItem::Batch
            ]
        );
        assert_eq!(
            read("users, teams, crash safe"),
            [
                name("users", ""),
                name("teams", ""),
                DescriptionItem::CrashSafe
            ]
        );
        assert_eq!(
            read("users, op list, op filter:paginated, depends authors:{author_id: i64}"),
            [
                name("users", ""),
                DescriptionItem::Op("list".into()),
                DescriptionItem::Op("filter:paginated".into()),
                DescriptionItem::Depends("authors".into()),
            ]
        );
        // Resources with the names of options. A name has no spaces, and these options have one.
        assert_eq!(
            read("shared, batch"),
            [name("shared", ""), name("batch", "")]
        );
        assert_eq!(read(""), []);
    }

    #[test]
    fn values_in_braces_are_blanked() {
        assert_eq!(blanked("avatar:{id: i64}"), "avatar:{}");
        assert_eq!(blanked("a{b{c}d}e"), "a{}e");
        assert_eq!(blanked("list"), "list");
    }
}
