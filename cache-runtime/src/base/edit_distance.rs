//! How far a name is from another, to guess which one was meant.

/// How many letters have to be inserted, removed, replaced, or swapped with their neighbour, to make
/// `to` of `from`. (Optimal string alignment: no letter is changed twice.)
pub(crate) fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // The distances of the starts of `from` that are two, one and no letters shorter, to each start
    // of `to`.
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    let mut letter_before = None;
    for (row, letter) in from.chars().enumerate() {
        let mut this = Vec::with_capacity(to.len() + 1);
        this.push(row + 1);
        for (at, other) in to.iter().enumerate() {
            let is_replaced = usize::from(letter != *other);
            let mut least = (last[at] + is_replaced)
                .min(last[at + 1] + 1)
                .min(this[at] + 1);
            if at > 0 && Some(*other) == letter_before && to[at - 1] == letter {
                let swapped: &usize = &before_last[at - 1];
                least = least.min(swapped + 1);
            }
            this.push(least);
        }
        before_last = std::mem::replace(&mut last, this);
        letter_before = Some(letter);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_letters() {
        for (from, to, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("users", "users", 0),
            ("user", "users", 1),
            ("suers", "users", 1),
            ("usesr", "users", 1),
            ("usirs", "users", 1),
            ("kitten", "sitting", 3),
            ("REDIS_PROT", "REDIS_PORT", 1),
            ("ähnlich", "ahnlich", 1),
            ("ca", "abc", 3),
        ] {
            assert_eq!(edit_distance(from, to), distance, "{from}, {to}");
            assert_eq!(edit_distance(to, from), distance, "{to}, {from}");
        }
    }
}
