//! Questions to a part that accepts any value first, and examines it later.
//!
//! Serde buffers the value of a tagged or untagged enum, and reads the fields from the buffer. So
//! the probe is not asked for them, and no error reports a missing optional field. But a derived
//! struct also accepts a field by its *position*, and its error names a field that comes twice. So
//! each position is offered twice, with one kind of value after the other, until a position is no
//! field. The part's errors about each offer belong to its shape.
//!
//! Behind `flatten` positions are not accepted. There the probe notes the size of the type.

use std::collections::{BTreeSet, VecDeque};

use super::error::Complaint;
use super::made::{Made, Name};
use super::plan::{PathHash, step};

/// The limit of one part. Its fields come before those of its fields, so the innermost are left
/// out.
const QUESTIONS: usize = 2_000;
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

/// The way to a place inside of the part.
#[derive(Debug, Clone)]
enum Step {
    /// An element behind others.
    Element(Vec<Made>),
    Variant(&'static str),
    Entry {
        given: Vec<(Name, Made)>,
        name: Name,
    },
}

#[derive(Debug, Clone)]
struct Place {
    path: PathHash,
    way: Vec<Step>,
    /// The errors of the parts around this one, as hashes. A type that contains itself repeats its
    /// errors.
    around: Vec<u64>,
}

impl Place {
    fn inside(&self, name: &str, next: Step) -> Self {
        let mut way = self.way.clone();
        way.push(next);
        Self {
            path: step(self.path, name),
            way,
            around: self.around.clone(),
        }
    }

    /// The value of the whole part which has this one at the place.
    fn holding(&self, value: Made) -> Made {
        let mut is_last = true;
        self.way.iter().rev().fold(value, |value, step| {
            let is_last = std::mem::take(&mut is_last);
            match step {
                Step::Element(before) => {
                    let mut parts = before.clone();
                    parts.push(value);
                    Made::List(parts)
                }
                Step::Variant(name) => Made::Map(vec![(Name::Text(name), value)]),
                Step::Entry { given, name } => {
                    let mut entries = given.clone();
                    if is_last {
                        entries.push((*name, value.clone()));
                    }
                    entries.push((*name, value));
                    // So no variant of an untagged enum takes it, and each is asked.
                    entries.push((Name::Refused, Made::Nothing));
                    Made::Map(entries)
                }
            }
        })
    }
}

enum Task {
    /// Asks which kinds of value are accepted here. The errors in `known` come in any case.
    Value { at: Place, known: Vec<Complaint> },
    /// The same for an element of a list, and for those behind it. `short` has the errors about a
    /// list that is too short.
    Element {
        around: Place,
        before: Vec<Made>,
        known: Vec<Complaint>,
        short: Vec<Complaint>,
    },
    /// Asks which fields are accepted here beside those that are given.
    Fields {
        at: Place,
        given: Vec<(Name, Made)>,
        is_adjacent: bool,
    },
}

/// Asks one part.
pub(super) struct Questions<'a> {
    /// Returns the part's errors about a value; `None` if it can't be asked any more.
    ask: &'a mut dyn FnMut(&Made) -> Option<Vec<Complaint>>,
    note: &'a mut dyn FnMut(PathHash, &str),
    tasks: VecDeque<Task>,
    left: usize,
    /// The names that the part as a whole was offered before.
    names: Vec<&'static str>,
}

impl<'a> Questions<'a> {
    pub(super) fn new(
        ask: &'a mut dyn FnMut(&Made) -> Option<Vec<Complaint>>,
        note: &'a mut dyn FnMut(PathHash, &str),
        names: Vec<&'static str>,
    ) -> Self {
        Self {
            ask,
            note,
            tasks: VecDeque::new(),
            left: QUESTIONS,
            names,
        }
    }

    /// Asks until there is nothing new. The end is early if the part can't be asked any more.
    pub(super) fn of(mut self, path: PathHash) {
        let at = Place {
            path,
            way: Vec::new(),
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

    fn heard(&mut self, at: &Place, kind: &str, value: Made) -> Option<Vec<Complaint>> {
        self.left = self.left.checked_sub(1)?;
        let heard = (self.ask)(&at.holding(value))?;
        let path = step(at.path, kind);
        for complaint in &heard {
            complaint.told(|text| (self.note)(path, text));
        }
        Some(heard)
    }

    fn element(
        &mut self,
        around: Place,
        mut before: Vec<Made>,
        known: Vec<Complaint>,
        short: Vec<Complaint>,
    ) -> Option<()> {
        let name = before.len().to_string();
        let at = around.inside(&name, Step::Element(before.clone()));
        let says = self.value(&at, &known)?;
        // A list with one accepted element is still too short.
        let is_short = |said: &[Complaint]| short.iter().all(|it| said.contains(it));
        let taken = says.into_iter().find(|(_, said)| is_short(said));
        let may_follow = !short.is_empty() && before.len() < PARTS;
        if let Some((made, _)) = taken.filter(|_| may_follow) {
            before.push(made);
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
    fn value(&mut self, at: &Place, known: &[Complaint]) -> Option<Vec<(Made, Vec<Complaint>)>> {
        let mut is_taken = false;
        let mut says = Vec::new();
        let kinds = [
            ("nothing", Made::Nothing),
            ("text", Made::Text("a")),
            ("number", Made::Number),
            ("bool", Made::Bool),
            ("float", Made::Float),
            ("list", Made::List(Vec::new())),
            ("map", Made::Map(Vec::new())),
        ];
        for (kind, made) in kinds {
            if is_taken && matches!(kind, "bool" | "float") {
                continue;
            }
            let mut heard = self.heard(at, kind, made.clone())?;
            heard.retain(|complaint| !known.contains(complaint));
            is_taken |= heard.iter().any(|it| matches!(it, Complaint::Twice(_)));
            says.push((made, heard));
        }
        let [(_, nothing), (_, text), .., (_, list), (_, map)] = &says[..] else {
            return Some(says);
        };
        if at.way.len() >= DEPTH {
            return Some(says);
        }
        let variants: BTreeSet<_> = text.iter().flat_map(Complaint::variants).collect();
        for name in variants.into_iter().take(NAMES) {
            let heard = self.heard(at, name, Made::Text(name))?;
            if heard.iter().any(|it| matches!(it, Complaint::Expected(_))) {
                let at = at.inside(name, Step::Variant(name));
                self.tasks.push_back(Task::Value {
                    at,
                    known: known.to_vec(),
                });
            }
        }
        // A type that is no list, or no map, has the same errors about each.
        let mut one = self.heard(at, "one", Made::List(vec![Made::Nothing]))?;
        one.retain(|it| !known.contains(it));
        if one != *list {
            self.tasks.push_back(Task::Element {
                around: at.clone(),
                before: Vec::new(),
                known: known.to_vec(),
                short: list.clone(),
            });
        }
        let refused = Made::Map(vec![(Name::Refused, Made::Nothing)]);
        let mut refused = self.heard(at, "refused", refused)?;
        refused.retain(|it| !known.contains(it));
        let is_map = at.way.is_empty()
            || refused != *map
            || map.iter().any(|it| !matches!(it, Complaint::Expected(_)));
        if is_map {
            let is_adjacent = nothing.iter().any(Complaint::is_of_adjacent_tag);
            let met = hash_of(&says);
            if at.around.iter().filter(|it| **it == met).count() >= INSIDE {
                return Some(says);
            }
            let mut at = at.clone();
            at.around.push(met);
            self.tasks.push_back(Task::Fields {
                at,
                given: Vec::new(),
                is_adjacent,
            });
        }
        Some(says)
    }

    fn fields(&mut self, at: &Place, given: &[(Name, Made)], is_adjacent: bool) -> Option<()> {
        let inside = |label: &str, name| {
            let given = given.to_vec();
            at.inside(label, Step::Entry { given, name })
        };
        let nowhere = inside("nowhere", Name::Position(NOWHERE));
        let known = self.heard(&nowhere, "nothing", Made::Nothing)?;
        let mut has_positions = false;
        for position in 0..NAMES {
            let at = inside(&position.to_string(), Name::Position(position as u64));
            let heard = self.heard(&at, "nothing", Made::Nothing)?;
            if heard == known {
                break;
            }
            has_positions = true;
            self.tasks.push_back(Task::Value {
                at,
                known: known.clone(),
            });
        }
        // The values of a map whose keys are numbers, or texts.
        if self.heard(&nowhere, "list", Made::List(Vec::new()))? != known {
            self.tasks.push_back(Task::Value {
                at: nowhere,
                known: known.clone(),
            });
        }
        let any = inside("any", Name::Text("a"));
        for (kind, made) in [("nothing", Made::Nothing), ("list", Made::List(Vec::new()))] {
            if self.heard(&any, kind, made)? != known {
                self.tasks.push_back(Task::Value {
                    at: any,
                    known: known.clone(),
                });
                break;
            }
        }
        let plain = self.heard(at, "given", Made::Map(given.to_vec()))?;
        let mut missing: BTreeSet<_> = plain.iter().flat_map(Complaint::fields).copied().collect();
        let is_whole = at.way.is_empty() && given.is_empty();
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
            let heard = self.heard(at, name, Made::Map(with(Made::Text("a"))))?;
            let variants: BTreeSet<_> = heard.iter().flat_map(Complaint::variants).collect();
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
                let given = with(Made::Text(variant));
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

fn hash_of(says: &[(Made, Vec<Complaint>)]) -> u64 {
    let mut hash = 0;
    for (_, said) in says {
        hash = step(hash, "of");
        for complaint in said {
            match complaint {
                // The name is that of this field.
                Complaint::Twice(_) => hash = step(hash, "taken"),
                _ => complaint.told(|text| hash = step(hash, text)),
            }
        }
    }
    hash
}
