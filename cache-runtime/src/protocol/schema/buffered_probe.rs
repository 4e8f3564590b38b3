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

    /// The errors about each kind of value here.
    fn value(
        &mut self,
        at: &Place,
        known: &[DeserializeError],
    ) -> Option<Vec<(SampleValue, Vec<DeserializeError>)>> {
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
            let mut errors = self.errors_for(at, kind, sample.clone())?;
            errors.retain(|error| !known.contains(error));
            is_taken |= errors
                .iter()
                .any(|it| matches!(it, DeserializeError::Twice(_)));
            errors_by_kind.push((sample, errors));
        }
        let [(_, nothing), (_, text), .., (_, list), (_, map)] = &errors_by_kind[..] else {
            return Some(errors_by_kind);
        };
        if at.steps.len() >= DEPTH {
            return Some(errors_by_kind);
        }
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
        // A type that is no list, or no map, has the same errors about each.
        let mut one = self.errors_for(at, "one", SampleValue::List(vec![SampleValue::Nothing]))?;
        one.retain(|it| !known.contains(it));
        if one != *list {
            self.tasks.push_back(Task::Element {
                around: at.clone(),
                before: Vec::new(),
                known: known.to_vec(),
                short: list.clone(),
            });
        }
        let refused = SampleValue::Map(vec![(Name::Refused, SampleValue::Nothing)]);
        let mut refused = self.errors_for(at, "refused", refused)?;
        refused.retain(|it| !known.contains(it));
        let is_map = at.steps.is_empty()
            || refused != *map
            || map
                .iter()
                .any(|it| !matches!(it, DeserializeError::Expected(_)));
        if is_map {
            let is_adjacent = nothing.iter().any(DeserializeError::is_of_adjacent_tag);
            let met = hash_of(&errors_by_kind);
            if at.around.iter().filter(|it| **it == met).count() >= INSIDE {
                return Some(errors_by_kind);
            }
            let mut at = at.clone();
            at.around.push(met);
            self.tasks.push_back(Task::Fields {
                at,
                given: Vec::new(),
                is_adjacent,
            });
        }
        Some(errors_by_kind)
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
        // The values of a map whose keys are numbers, or texts.
        if self.errors_for(&nowhere, "list", SampleValue::List(Vec::new()))? != known {
            self.tasks.push_back(Task::Value {
                at: nowhere,
                known: known.clone(),
            });
        }
        let any = inside("any", Name::Text("a"));
        for (kind, sample) in [
            ("nothing", SampleValue::Nothing),
            ("list", SampleValue::List(Vec::new())),
        ] {
            if self.errors_for(&any, kind, sample)? != known {
                self.tasks.push_back(Task::Value {
                    at: any,
                    known: known.clone(),
                });
                break;
            }
        }
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
        for name in missing {
            if given.iter().any(|(given, _)| *given == Name::Text(name)) {
                continue;
            }
            let named = inside(name, Name::Text(name));
            let with = |value| {
                let mut with = given.to_vec();
                with.push((Name::Text(name), value));
                with
            };
            let errors =
                self.errors_for(at, name, SampleValue::Map(with(SampleValue::Text("a"))))?;
            let variants: BTreeSet<_> =
                errors.iter().flat_map(DeserializeError::variants).collect();
            if variants.is_empty() {
                if !(is_known || is_whole && self.names.contains(&name)) {
                    self.tasks.push_back(Task::Value {
                        at: named,
                        known: known.clone(),
                    });
                }
                continue;
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
