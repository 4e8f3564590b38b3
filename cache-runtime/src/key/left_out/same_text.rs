//! Compares what was serialised with a `Debug` text, character by character.

use super::debug_text::{Form, Shown};
use super::record::{Data, Node};

/// Whether a value's `Debug` text equals what was serialised, character by character.
pub(super) fn same(node: &Node, shown: &Shown<'_>) -> bool {
    fn pairs<'n, 's>(
        nodes: impl ExactSizeIterator<Item = &'n Node>,
        shown: impl ExactSizeIterator<Item = &'s Shown<'s>>,
    ) -> bool {
        nodes.len() == shown.len() && nodes.zip(shown).all(|(node, shown)| same(node, shown))
    }
    match (&node.data, &shown.form) {
        (Data::Leaf { text, .. }, _) => is_text_of(text, shown.raw),
        (Data::Unit, _) => shown.raw == "()",
        (Data::None, Form::Word) => shown.name == "None",
        (Data::Some(inner), Form::Tuple(items)) => {
            shown.name == "Some" && pairs([&**inner].into_iter(), items.iter())
        }
        (Data::Items(all, _), Form::List(items)) => pairs(all.iter(), items.iter()),
        (Data::Items(all, _), Form::Tuple(items)) => {
            shown.name.is_empty() && pairs(all.iter(), items.iter())
        }
        (Data::Items(all, _), Form::Braces(entries)) => {
            let are_items = entries.iter().all(|(_, value)| value.is_none());
            are_items && pairs(all.iter(), entries.iter().map(|(item, _)| item))
        }
        (Data::Map(all, _), Form::Braces(entries)) => {
            let entry =
                |((key, value), (k, v)): (&(Node, Node), &(Shown<'_>, Option<Shown<'_>>))| {
                    same(key, k) && v.as_ref().is_some_and(|v| same(value, v))
                };
            all.len() == entries.len() && all.iter().zip(entries).all(entry)
        }
        (Data::Newtype(_, inner), Form::Tuple(items)) => {
            shown.name == node.name() && pairs([&**inner].into_iter(), items.iter())
        }
        (Data::Newtype(_, inner), Form::Leaf) => same(inner, shown),
        _ => false,
    }
}

/// Whether both texts are the same: equal, equal without the quotes (`"1.5"` and `1.5`), or bytes
/// and their hexadecimal form.
fn is_text_of(text: &str, shown: &str) -> bool {
    if text == shown {
        return true;
    }
    let inside = |open, close| text.strip_prefix(open).and_then(|t| t.strip_suffix(close));
    if let Some(inside) = inside('"', '"') {
        return inside == shown && !inside.contains('\\');
    }
    let Some(bytes) = inside('[', ']') else {
        return false;
    };
    let mut digits = shown.bytes().filter(|byte| *byte != b'-');
    let mut bytes = bytes.split(", ").map(str::parse::<u8>);
    let is_same = bytes.all(|byte| {
        let pair = [digits.next(), digits.next()].map(|digit| char::from(digit.unwrap_or(b' ')));
        let [high, low] = pair.map(|digit| digit.to_digit(16));
        matches!((byte, high, low), (Ok(byte), Some(high), Some(low)) if u32::from(byte) == high << 4 | low)
    });
    is_same && digits.next().is_none()
}
