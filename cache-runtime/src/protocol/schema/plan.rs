//! The plan of a probe: what to offer at each place of a type, and what has been noted so far.
//!
//! A type is read many times: each reading takes one variant of an enum, and ends where a value is
//! refused. The plan remembers each refusal by its place, and the next reading offers another value
//! there, or none. The probe ends when a reading finds nothing new.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::rc::Rc;

use siphasher::sip::SipHasher13;

use super::endless;
use super::error::{DeserializeError, Stop, take_errors};
use super::sample_value::SampleValue;
use super::shape::Schema;

/// More steps than any hand-written type needs. A type that needs more has a partial shape.
const STEPS: usize = 200_000;
/// The limit of one reading. It stops a type whose parts multiply.
const STEPS_OF_ONE: usize = 20_000;
/// Deeper, the stack might overflow in the type's own functions.
const DEPTH: usize = 40;
/// The same in steps. A list of newtypes contains itself and never reads a part as another type.
const STEPS_DOWN: usize = 4 * DEPTH;
/// The most names learnt at one place.
const LEARNT: usize = 64;

/// A place in the type: a hash of the path to it.
pub(super) type PathHash = u64;

/// The values that were tried at one place.
#[derive(Debug, Default)]
struct Node {
    /// The index of the value to offer.
    choice: usize,
    /// The part is left out, since every value was refused.
    skipped: bool,
    /// The names of fields that the type has asked for in its errors.
    fields: Vec<&'static str>,
    variants: Vec<Variant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    New,
    /// There is more to find in it.
    Open,
    Done,
}

/// A part that takes any value first, and how to get there.
#[derive(Debug)]
pub(super) struct Taker {
    pub(super) path: PathHash,
    /// The struct that it is flattened into, which looks at it.
    flat: Option<PathHash>,
    /// The variants that were read before.
    variants: Vec<(PathHash, usize)>,
    /// The parts around it.
    within: Vec<PathHash>,
}

/// The value that is offered to such a part in a reading that asks it.
#[derive(Debug)]
struct Question {
    of: Rc<Taker>,
    value: Rc<SampleValue>,
    is_asked: bool,
    errors: Vec<DeserializeError>,
}

/// The state of all readings of one type.
#[derive(Debug, Default)]
pub(super) struct Plan {
    facts: BTreeSet<u64>,
    /// The names that values of the type are written with.
    written: BTreeSet<u64>,
    pub(super) guesses: bool,
    pub(super) is_endless: bool,
    nodes: BTreeMap<PathHash, Node>,
    /// Variants that do not contain their own enum, by the enum's name.
    ends: BTreeMap<&'static str, usize>,
    steps: usize,
    /// The same of the readings that ask a part.
    steps_asked: usize,
    /// The number of changes so far.
    changes: usize,
    takers: Vec<Rc<Taker>>,
    question: Option<Question>,
    // The fields below belong to the current reading.
    steps_of_one: usize,
    /// Whether the part at fault has been found.
    blamed: bool,
    /// The last place where another value may be offered, and how many values there are.
    last: Option<(PathHash, usize)>,
    /// The number of enums met that have more to find.
    open: usize,
    /// How often a type was met inside itself.
    recursions: usize,
    /// The types that are being read, outermost first.
    pub(super) active: Vec<&'static str>,
    /// The places of these types.
    pub(super) within: Vec<PathHash>,
    /// The variants that were read.
    variants: Vec<(PathHash, usize)>,
}

/// The state of a reading before one of its parts.
#[derive(Clone, Copy)]
pub(super) struct Before {
    changes: usize,
    open: usize,
    recursions: usize,
}

pub(super) fn step(path: PathHash, name: &str) -> PathHash {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(path);
    hasher.write(name.as_bytes());
    hasher.finish()
}

impl Plan {
    pub(super) fn begin(&mut self) {
        self.steps_of_one = 0;
        self.blamed = false;
        self.last = None;
        self.open = 0;
        self.recursions = 0;
        self.active.clear();
        self.within.clear();
        self.variants.clear();
        take_errors();
    }

    /// A part of this type is read.
    pub(super) fn begins_part(&mut self, ty: &'static str, path: PathHash) {
        self.active.push(ty);
        self.within.push(path);
    }

    /// The part has been read, or not.
    pub(super) fn ends_part(&mut self, path: PathHash, is_ok: bool) {
        self.active.pop();
        self.within.pop();
        match is_ok {
            true => self.listen(path),
            false => self.blame(path),
        }
    }

    /// A part takes any value, and looks at it later.
    pub(super) fn takes_any(&mut self, path: PathHash, flat: Option<PathHash>) {
        if self.question.is_none() && self.takers.iter().all(|taker| taker.path != path) {
            self.takers.push(Rc::new(Taker {
                path,
                flat,
                variants: self.variants.clone(),
                within: self.within.clone(),
            }));
        }
    }

    pub(super) fn takers(&self) -> Vec<Rc<Taker>> {
        self.takers.clone()
    }

    /// Begins a reading that only offers one value to a part. `None` after too many.
    pub(super) fn begin_question(&mut self, of: &Rc<Taker>, value: &SampleValue) -> Option<()> {
        if self.steps_asked > STEPS {
            return None;
        }
        self.begin();
        self.question = Some(Question {
            of: Rc::clone(of),
            value: Rc::new(value.clone()),
            is_asked: false,
            errors: Vec::new(),
        });
        Some(())
    }

    /// The errors of the part, if it was reached.
    pub(super) fn end_question(&mut self) -> Option<Vec<DeserializeError>> {
        let question = self.question.take()?;
        question.is_asked.then_some(question.errors)
    }

    /// The value to offer here, if this reading asks the part here.
    pub(super) fn offer(&mut self, path: PathHash) -> Option<Rc<SampleValue>> {
        let question = self.question.as_mut()?;
        if question.of.path != path || std::mem::replace(&mut question.is_asked, true) {
            return None;
        }
        take_errors();
        Some(Rc::clone(&question.value))
    }

    /// Whether the part that is asked is here, or inside of this one.
    pub(super) fn is_on_the_way(&self, path: PathHash) -> bool {
        let question = self.question.as_ref();
        question.is_some_and(|question| question.of.within.contains(&path))
    }

    /// Whether a field is left out, since this reading asks a part elsewhere.
    pub(super) fn is_aside(&self, path: PathHash) -> bool {
        self.question.as_ref().is_some_and(|question| {
            let of = &question.of;
            !of.within.contains(&path) && of.variants.iter().all(|(at, _)| *at != path)
        })
    }

    /// The variant that was read at this place.
    pub(super) fn tag(&self, path: PathHash) -> Option<usize> {
        let mut read = self.variants.iter().rev();
        read.find_map(|(at, variant)| (*at == path).then_some(*variant))
    }

    /// Whether another reading may find more. The last one began at `before`.
    pub(super) fn goes_on(&self, before: Before) -> bool {
        self.changes != before.changes && self.steps < STEPS
    }

    pub(super) fn before(&self) -> Before {
        Before {
            changes: self.changes,
            open: self.open,
            recursions: self.recursions,
        }
    }

    /// Notes what the type asks for. An error ends the reading.
    pub(super) fn note(&mut self, path: PathHash, depth: usize, what: &str) -> Result<(), Stop> {
        endless::asked();
        if self.question.is_some() {
            self.steps_asked += 1;
        } else {
            self.steps += 1;
        }
        self.steps_of_one += 1;
        if self.steps_of_one > STEPS_OF_ONE || self.active.len() > DEPTH || depth > STEPS_DOWN {
            return Err(Stop);
        }
        self.fact(path, what);
        Ok(())
    }

    pub(super) fn note_names(&mut self, path: PathHash, names: &[&'static str]) {
        for (position, name) in names.iter().enumerate() {
            self.fact(path, name);
            // Postcard knows fields and variants by their positions.
            self.fact(step(path, name), &position.to_string());
        }
    }

    pub(super) fn fact(&mut self, path: PathHash, what: &str) {
        if self.question.is_some() {
            return;
        }
        self.facts.insert(step(step(path, "is"), what));
    }

    /// Whether serde's code may read fields of the type without a request: behind `flatten`, or of a
    /// part that takes any value.
    fn has_unasked_fields(&self) -> bool {
        self.guesses || !self.takers.is_empty()
    }

    /// Whether the names that a value is written with belong to the shape. A value that was made to
    /// ask one part shows nothing new.
    pub(super) fn wants_names(&self) -> bool {
        self.question.is_none() && self.has_unasked_fields()
    }

    pub(super) fn is_written(&mut self, name: PathHash) {
        self.written.insert(name);
    }

    /// The shape, as far as it has been found.
    pub(super) fn schema(&self) -> Schema {
        let mut hasher = SipHasher13::new();
        for fact in &self.facts {
            hasher.write_u64(*fact);
        }
        // Any other type has asked for all its fields.
        if self.has_unasked_fields() {
            for name in &self.written {
                hasher.write_u64(*name);
            }
        }
        Schema {
            hash: hasher.finish(),
            guesses: self.guesses,
            is_endless: self.is_endless,
        }
    }

    /// The index of the value to offer, `of` how many.
    pub(super) fn choice(&mut self, path: PathHash, of: usize) -> usize {
        self.last = Some((path, of));
        self.nodes.entry(path).or_default().choice
    }

    pub(super) fn is_skipped(&self, path: PathHash) -> bool {
        if self.is_on_the_way(path) {
            return false;
        }
        self.nodes.get(&path).is_some_and(|node| node.skipped)
    }

    pub(super) fn recurs(&mut self) {
        self.recursions += 1;
    }

    /// Ends this reading without blaming a part: a variant is missing that a later reading may
    /// find.
    pub(super) fn requeue(&mut self) -> Stop {
        self.blamed = true;
        Stop
    }

    /// A part was refused. The innermost part reports first, and is the one at fault.
    pub(super) fn blame(&mut self, path: PathHash) {
        self.listen(path);
        if self.blamed || self.question.is_some() {
            return;
        }
        if let Some((last, of)) = self.last {
            let node = self.nodes.entry(last).or_default();
            if node.choice + 1 < of {
                node.choice += 1;
                self.blamed = true;
                self.changes += 1;
                return;
            }
        }
        let node = self.nodes.entry(path).or_default();
        // If it is left out already and is offered all the same, as in a tuple, then the part
        // around it is at fault.
        if !std::mem::replace(&mut node.skipped, true) {
            self.blamed = true;
            self.changes += 1;
        }
    }

    /// Takes the type's errors into account.
    pub(super) fn listen(&mut self, path: PathHash) {
        if let Some(question) = &mut self.question {
            let of = &question.of;
            if question.is_asked && (of.path == path || of.flat == Some(path)) {
                question.errors.extend(take_errors());
            }
            return;
        }
        for error in take_errors() {
            match error {
                DeserializeError::Missing(name) => {
                    self.fact(path, name);
                    self.learn(path, &[name]);
                }
                DeserializeError::Fields(names) => {
                    self.note_names(path, names);
                    self.learn(path, names);
                }
                // At this place, the names are offered one after the other instead of fields.
                DeserializeError::Variants(names) => {
                    self.note_names(path, names);
                    let node = self.nodes.entry(path).or_default();
                    if node.fields.is_empty() {
                        node.fields.extend(names.iter().take(LEARNT));
                    }
                }
                DeserializeError::Expected(text) => self.fact(path, &text),
                DeserializeError::Twice(_) | DeserializeError::Other => {}
            }
        }
    }

    /// A name was refused before its value was read.
    pub(super) fn refuse(&mut self, path: PathHash) {
        if self.question.is_none() && !std::mem::replace(&mut self.blamed, true) {
            self.changes += 1;
            self.nodes.entry(path).or_default().skipped = true;
        }
    }

    fn learn(&mut self, path: PathHash, names: &[&'static str]) {
        let node = self.nodes.entry(path).or_default();
        for name in names {
            if !node.fields.contains(name) && node.fields.len() < LEARNT {
                node.fields.push(name);
                self.changes += 1;
                // The next reading will offer it.
                self.blamed = true;
            }
        }
    }

    /// The names that the type has asked for, at a place where it has not listed its fields.
    pub(super) fn learnt(&self, path: PathHash) -> Vec<&'static str> {
        let node = self.nodes.get(&path);
        node.map(|node| node.fields.clone()).unwrap_or_default()
    }

    /// The variant to read: one with more to find, otherwise one that can be read.
    pub(super) fn variant(
        &mut self,
        (path, name): (PathHash, &'static str),
        count: usize,
    ) -> usize {
        let end = self.end(name).unwrap_or(0);
        let node = self.nodes.entry(path).or_default();
        node.variants.resize(count, Variant::New);
        let of = |kind| node.variants.iter().position(|it| *it == kind);
        let asked = self.question.as_ref().and_then(|question| {
            let mut variants = question.of.variants.iter();
            variants.find_map(|(at, variant)| (*at == path).then_some(*variant))
        });
        let variant = asked
            .or_else(|| of(Variant::New))
            .or_else(|| of(Variant::Open))
            .unwrap_or(end);
        self.variants.push((path, variant));
        variant
    }

    /// The variant to read of an enum inside itself.
    pub(super) fn end(&self, name: &'static str) -> Option<usize> {
        self.ends.get(name).copied()
    }

    /// Notes that a variant was read or refused.
    pub(super) fn has_read(
        &mut self,
        (path, name): (PathHash, &'static str),
        variant: usize,
        is_ok: bool,
        before: Before,
    ) {
        if self.question.is_some() {
            return;
        }
        if is_ok && self.recursions == before.recursions {
            self.ends.entry(name).or_insert(variant);
        }
        let is_new = self.changes != before.changes;
        let is_open = self.open != before.open;
        let is_done = is_ok && !is_open || !is_new;
        let Some(node) = self.nodes.get_mut(&path) else {
            return;
        };
        let Some(state) = node.variants.get_mut(variant) else {
            return;
        };
        let next = match (*state, is_done) {
            (Variant::Done, _) => Variant::Done,
            (Variant::New, false) => Variant::Open,
            (Variant::New, true) if !is_ok => Variant::Open,
            (_, true) => Variant::Done,
            (Variant::Open, false) => Variant::Open,
        };
        if *state != next {
            *state = next;
            self.changes += 1;
        }
        if node.variants.iter().any(|state| *state != Variant::Done) {
            self.open += 1;
        }
    }
}
