//! Probes a part that accepts any value first, and examines it later.
//!
//! Serde buffers the value of a tagged or untagged enum, and reads the fields from the buffer. So
//! the probe is not asked for them, and no error reports a missing optional field. But a derived
//! struct also accepts a field by its *position*, and its error names a field that comes twice. So
//! each position is offered twice, with one kind of value after the other, until a position is no
//! field. The part's errors about each offer belong to its shape.
//!
//! Behind `flatten` positions are not accepted. There the probe notes the size of the type.

use std::collections::{BTreeSet, VecDeque};

use super::error::DeserializeError;
use super::plan::{PathHash, step};
use super::sample_value::{Name, SampleValue};

/// The limit of one part. Its fields come before those of its fields, so the innermost are left
/// out.
const QUESTION_LIMIT: usize = 2_000;
/// How far inside of the part fields are looked for.
const DEPTH: usize = 7;
/// The most fields and variants at one place.
const NAMES: usize = 64;
/// A position that is no field, and fits in the smallest number.
const NOWHERE: u64 = 120;
/// The most parts of a tuple.
const PARTS: usize = 12;
/// How often a type is met inside of itself.
const INSIDE: usize = 2;

/// One step on the way to a place inside of the part.
#[derive(Debug, Clone)]
enum Step {
    /// An element behind others.
    Element(Vec<SampleValue>),
    Variant(&'static str),
    Entry {
        given: Vec<(Name, SampleValue)>,
        name: Name,
    },
}

#[derive(Debug, Clone)]
struct Place {
    path: PathHash,
    steps: Vec<Step>,
    /// The errors of the parts around this one, as hashes. A type that contains itself repeats its
    /// errors.
    around: Vec<u64>,
}

impl Place {
    fn inside(&self, name: &str, next: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(next);
        Self {
            path: step(self.path, name),
            steps,
            around: self.around.clone(),
        }
    }

    /// The value of the whole part which has this one at the place.
    fn wrap(&self, value: SampleValue) -> SampleValue {
        let mut is_last = true;
        self.steps.iter().rev().fold(value, |value, step| {
            let is_last = std::mem::take(&mut is_last);
            match step {
                Step::Element(before) => {
                    let mut parts = before.clone();
                    parts.push(value);
                    SampleValue::List(parts)
                }
                Step::Variant(name) => SampleValue::Map(vec![(Name::Text(name), value)]),
                Step::Entry { given, name } => {
                    let mut entries = given.clone();
                    if is_last {
                        entries.push((*name, value.clone()));
                    }
                    entries.push((*name, value));
                    // So no variant of an untagged enum takes it, and each is asked.
                    entries.push((Name::Refused, SampleValue::Nothing));
                    SampleValue::Map(entries)
                }
            }
        })
    }
}

enum Task {
    /// Asks which kinds of value are accepted here. The errors in `known` come in any case.
    Value {
        at: Place,
        known: Vec<DeserializeError>,
    },
    /// The same for an element of a list, and for those behind it. `short` has the errors about a
    /// list that is too short.
    Element {
        around: Place,
        before: Vec<SampleValue>,
        known: Vec<DeserializeError>,
        short: Vec<DeserializeError>,
    },
    /// Asks which fields are accepted here beside those that are given.
    Fields {
        at: Place,
        given: Vec<(Name, SampleValue)>,
        is_adjacent: bool,
    },
}

/// The errors about each kind of value.
type ErrorsByKind = Vec<(SampleValue, Vec<DeserializeError>)>;

/// Asks one part.
pub(super) struct BufferedProbe<'a> {
    /// Returns the part's errors about a value; `None` if it can't be asked any more.
    ask: &'a mut dyn FnMut(&SampleValue) -> Option<Vec<DeserializeError>>,
    note: &'a mut dyn FnMut(PathHash, &str),
    tasks: VecDeque<Task>,
    left: usize,
    /// The names that the part as a whole was offered before.
    names: Vec<&'static str>,
}

impl<'a> BufferedProbe<'a> {
    pub(super) fn new(
        ask: &'a mut dyn FnMut(&SampleValue) -> Option<Vec<DeserializeError>>,
        note: &'a mut dyn FnMut(PathHash, &str),
        names: Vec<&'static str>,
    ) -> Self {
        Self {
            ask,
            note,
            tasks: VecDeque::new(),
            left: QUESTION_LIMIT,
            names,
        }
    }

    /// Asks until there is nothing new. The end is early if the part can't be asked any more.
    pub(super) fn of(mut self, path: PathHash) {
        let at = Place {
            path,
            steps: Vec::new(),
            around: Vec::new(),
        };
        self.tasks.push_back(Task::Value {
            at,
            known: Vec::new(),
        });
        while let Some(task) = self.tasks.pop_front() {
            let end = match task {
                Task::Value { at, known } => self.value(&at, &known).map(|_| ()),
                Task::Element {
                    around,
                    before,
                    known,
                    short,
                } => self.element(around, before, known, short),
                Task::Fields {
                    at,
                    given,
                    is_adjacent,
                } => self.fields(&at, &given, is_adjacent),
            };
            if end.is_none() {
                return;
            }
        }
    }

    fn errors_for(
        &mut self,
        at: &Place,
        kind: &str,
        value: SampleValue,
    ) -> Option<Vec<DeserializeError>> {
        self.left = self.left.checked_sub(1)?;
        let errors = (self.ask)(&at.wrap(value))?;
        let path = step(at.path, kind);
        for error in &errors {
            error.for_each_text(|text| (self.note)(path, text));
        }
        Some(errors)
    }

    /// The same without those that come in any case.
    fn new_errors_for(
        &mut self,
        at: &Place,
        kind: &str,
        value: SampleValue,
        known: &[DeserializeError],
    ) -> Option<Vec<DeserializeError>> {
        let mut errors = self.errors_for(at, kind, value)?;
        errors.retain(|error| !known.contains(error));
        Some(errors)
    }

    fn element(
        &mut self,
        around: Place,
        mut before: Vec<SampleValue>,
        known: Vec<DeserializeError>,
        short: Vec<DeserializeError>,
    ) -> Option<()> {
        let name = before.len().to_string();
        let at = around.inside(&name, Step::Element(before.clone()));
        let errors_by_kind = self.value(&at, &known)?;
        // A list with one accepted element is still too short.
        let is_short = |errors: &[DeserializeError]| short.iter().all(|it| errors.contains(it));
        let taken = errors_by_kind
            .into_iter()
            .find(|(_, errors)| is_short(errors));
        let may_follow = !short.is_empty() && before.len() < PARTS;
        if let Some((sample, _)) = taken.filter(|_| may_follow) {
            before.push(sample);
            self.tasks.push_back(Task::Element {
                around,
                before,
                known,
                short,
            });
        }
        Some(())
    }

    /// Asks about a value here, and what may be in it. Returns the errors about each kind of value.
    fn value(&mut self, at: &Place, known: &[DeserializeError]) -> Option<ErrorsByKind> {
        let errors_by_kind = self.errors_by_kind(at, known)?;
        let [(_, nothing), (_, text), .., (_, list), (_, map)] = &errors_by_kind[..] else {
            return Some(errors_by_kind);
        };
        if at.steps.len() >= DEPTH {
            return Some(errors_by_kind);
        }
        self.variants(at, known, text)?;
        self.elements(at, known, list)?;
        if self.is_map(at, known, map)? {
            let met = hash_of(&errors_by_kind);
            if at.around.iter().filter(|it| **it == met).count() < INSIDE {
                let is_adjacent = nothing.iter().any(DeserializeError::is_of_adjacent_tag);
                let mut at = at.clone();
                at.around.push(met);
                self.tasks.push_back(Task::Fields {
                    at,
                    given: Vec::new(),
                    is_adjacent,
                });
            }
        }
        Some(errors_by_kind)
    }

    /// The errors about each kind of value here, without those that come in any case.
    fn errors_by_kind(&mut self, at: &Place, known: &[DeserializeError]) -> Option<ErrorsByKind> {
        let mut is_taken = false;
        let mut errors_by_kind = Vec::new();
        let kinds = [
            ("nothing", SampleValue::Nothing),
            ("text", SampleValue::Text("a")),
            ("number", SampleValue::Number),
            ("bool", SampleValue::Bool),
            ("float", SampleValue::Float),
            ("list", SampleValue::List(Vec::new())),
            ("map", SampleValue::Map(Vec::new())),
        ];
        for (kind, sample) in kinds {
            if is_taken && matches!(kind, "bool" | "float") {
                continue;
            }
            let errors = self.new_errors_for(at, kind, sample.clone(), known)?;
            is_taken |= errors
                .iter()
                .any(|it| matches!(it, DeserializeError::Twice(_)));
            errors_by_kind.push((sample, errors));
        }
        Some(errors_by_kind)
    }

    /// The variants that a text may be. `text` has the errors about a text.
    fn variants(
        &mut self,
        at: &Place,
        known: &[DeserializeError],
        text: &[DeserializeError],
    ) -> Option<()> {
        let variants: BTreeSet<_> = text.iter().flat_map(DeserializeError::variants).collect();
        for name in variants.into_iter().take(NAMES) {
            let errors = self.errors_for(at, name, SampleValue::Text(name))?;
            if errors
                .iter()
                .any(|it| matches!(it, DeserializeError::Expected(_)))
            {
                let at = at.inside(name, Step::Variant(name));
                self.tasks.push_back(Task::Value {
                    at,
                    known: known.to_vec(),
                });
            }
        }
        Some(())
    }

    /// The elements of a list. `list` has the errors about an empty one.
    fn elements(
        &mut self,
        at: &Place,
        known: &[DeserializeError],
        list: &[DeserializeError],
    ) -> Option<()> {
        // A type that is no list has the same errors about each.
        let one = SampleValue::List(vec![SampleValue::Nothing]);
        if self.new_errors_for(at, "one", one, known)? != list {
            self.tasks.push_back(Task::Element {
                around: at.clone(),
                before: Vec::new(),
                known: known.to_vec(),
                short: list.to_vec(),
            });
        }
        Some(())
    }

    /// Whether a map may be here. `map` has the errors about an empty one.
    fn is_map(
        &mut self,
        at: &Place,
        known: &[DeserializeError],
        map: &[DeserializeError],
    ) -> Option<bool> {
        // A type that is no map has the same errors about each.
        let refused = SampleValue::Map(vec![(Name::Refused, SampleValue::Nothing)]);
        let refused = self.new_errors_for(at, "refused", refused, known)?;
        let is_expected = |it: &DeserializeError| matches!(it, DeserializeError::Expected(_));
        Some(at.steps.is_empty() || refused != map || !map.iter().all(is_expected))
    }

    fn fields(
        &mut self,
        at: &Place,
        given: &[(Name, SampleValue)],
        is_adjacent: bool,
    ) -> Option<()> {
        let inside = |label: &str, name| {
            let given = given.to_vec();
            at.inside(label, Step::Entry { given, name })
        };
        let nowhere = inside("nowhere", Name::Position(NOWHERE));
        let known = self.errors_for(&nowhere, "nothing", SampleValue::Nothing)?;
        let mut has_positions = false;
        for position in 0..NAMES {
            let at = inside(&position.to_string(), Name::Position(position as u64));
            let errors = self.errors_for(&at, "nothing", SampleValue::Nothing)?;
            if errors == known {
                break;
            }
            has_positions = true;
            self.tasks.push_back(Task::Value {
                at,
                known: known.clone(),
            });
        }
        self.values(nowhere, inside("any", Name::Text("a")), &known)?;
        let plain = self.errors_for(at, "given", SampleValue::Map(given.to_vec()))?;
        let mut missing: BTreeSet<_> = plain
            .iter()
            .flat_map(DeserializeError::fields)
            .copied()
            .collect();
        let is_whole = at.steps.is_empty() && given.is_empty();
        // A missing field is known only by its name if it is a tag, or behind `flatten`.
        let is_known = has_positions && !is_adjacent;
        if is_whole {
            missing.extend(&self.names);
        } else if is_known {
            return Some(());
        }
        missing.retain(|name| given.iter().all(|(given, _)| *given != Name::Text(name)));
        for name in missing {
            let is_asked = !(is_known || is_whole && self.names.contains(&name));
            let named = inside(name, Name::Text(name));
            self.named_field(at, given, name, named, is_asked.then_some(&*known))?;
        }
        Some(())
    }

    /// The values of a map whose keys are numbers, or texts.
    fn values(
        &mut self,
        of_number: Place,
        of_text: Place,
        known: &[DeserializeError],
    ) -> Option<()> {
        let nothing = || ("nothing", SampleValue::Nothing);
        let list = || ("list", SampleValue::List(Vec::new()));
        for (at, kinds) in [
            (of_number, vec![list()]),
            (of_text, vec![nothing(), list()]),
        ] {
            for (kind, sample) in kinds {
                if self.errors_for(&at, kind, sample)? != known {
                    self.tasks.push_back(Task::Value {
                        at,
                        known: known.to_vec(),
                    });
                    break;
                }
            }
        }
        Some(())
    }

    /// A field that is known by its name: the tag of variants, whose fields are asked for then, or
    /// any value, which is asked for with these `known` errors.
    fn named_field(
        &mut self,
        at: &Place,
        given: &[(Name, SampleValue)],
        name: &'static str,
        named: Place,
        known: Option<&[DeserializeError]>,
    ) -> Option<()> {
        let with = |value| {
            let mut with = given.to_vec();
            with.push((Name::Text(name), value));
            with
        };
        let errors = self.errors_for(at, name, SampleValue::Map(with(SampleValue::Text("a"))))?;
        let variants: BTreeSet<_> = errors.iter().flat_map(DeserializeError::variants).collect();
        if variants.is_empty() {
            if let Some(known) = known {
                self.tasks.push_back(Task::Value {
                    at: named,
                    known: known.to_vec(),
                });
            }
            return Some(());
        }
        for variant in variants.into_iter().take(NAMES) {
            let given = with(SampleValue::Text(variant));
            let at = Place {
                path: step(named.path, variant),
                ..at.clone()
            };
            self.tasks.push_back(Task::Fields {
                at,
                given,
                is_adjacent: false,
            });
        }
        Some(())
    }
}

fn hash_of(errors_by_kind: &[(SampleValue, Vec<DeserializeError>)]) -> u64 {
    let mut hash = 0;
    for (_, errors) in errors_by_kind {
        hash = step(hash, "of");
        for error in errors {
            match error {
                // The name is that of this field.
                DeserializeError::Twice(_) => hash = step(hash, "taken"),
                _ => error.for_each_text(|text| hash = step(hash, text)),
            }
        }
    }
    hash
}
