//! The value under a generation's key: a nonce, and the intents that stand on it.

use arbitrary::{Result, Unstructured};
use cache_runtime::store::{Generation, Millis, Nonce};

use super::{damage, some};

/// Whatever lies there.
pub fn holds(bytes: &[u8]) {
    read_as_it_is(bytes);
    let mut input = Unstructured::new(bytes);
    let _ = written(&mut input);
}

/// What the scripts write: it reads back, and with damage it is read as what it then says.
fn written(input: &mut Unstructured<'_>) -> Result<()> {
    let nonce = Nonce(input.arbitrary()?);
    let intents: Vec<(u128, u64)> = some(input, 4)?;
    let mut text = nonce.to_string();
    for (token, deadline) in &intents {
        text.push_str(&format!(" {}@{deadline}", Nonce(*token)));
    }
    let last = intents.iter().map(|(_, deadline)| Millis(*deadline)).max();
    let expected = Generation {
        nonce,
        intents_until: last,
    };
    assert_eq!(Generation::parse(text.as_bytes()), Some(expected));
    assert_eq!(Nonce::parse(nonce.to_string().as_bytes()), Some(nonce));

    let mut damaged = text.into_bytes();
    damage(&mut damaged, input)?;
    read_as_it_is(&damaged);
    let length = input.int_in_range(0..=damaged.len())?;
    read_as_it_is(&damaged[..length]);
    Ok(())
}

/// What is read as a generation has all of its intents heeded: their last deadline, as told by
/// somebody else.
fn read_as_it_is(bytes: &[u8]) {
    let Some(Generation {
        nonce,
        intents_until,
    }) = Generation::parse(bytes)
    else {
        return;
    };
    let text = std::str::from_utf8(bytes).expect("a generation is text");
    let (written, intents) = text.split_at(Nonce::TEXT_LEN);
    assert_eq!(nonce.to_string(), written);
    assert!(intents.is_empty() || intents.starts_with(' '));
    let intents = intents.split(|c: char| c.is_ascii_whitespace());
    let deadlines = intents.filter(|intent| !intent.is_empty()).map(|intent| {
        let at = intent.find('@').expect("each names its deadline");
        intent[at + 1..].parse().map(Millis).expect("a number")
    });
    assert_eq!(deadlines.max(), intents_until, "{text:?}");
}
