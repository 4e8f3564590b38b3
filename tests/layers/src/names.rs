//! Where a path leads: through imports and re-exports to the file that defines the name.

use crate::Arrows;
use crate::modules::Module;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Module(usize),
    /// A name, and the file that defines it.
    Item {
        file: String,
        name: String,
    },
}

/// What each file takes from each other file.
///
/// A re-export is no import of the file that has it, unless its code uses the name, too: whoever
/// takes the name through it is said to import the file that defines it.
pub(crate) fn arrows(modules: &[Module]) -> Arrows {
    let mut arrows = Arrows::new();
    for (id, module) in modules.iter().enumerate() {
        let mut add = |target: Option<Target>| {
            if let Some(Target::Item { file, name }) = target
                && file != module.file
            {
                let names = arrows.entry((module.file.clone(), file)).or_default();
                names.insert(name);
            }
        };
        for import in &module.imports {
            match &import.name {
                Some(name) if !import.public || module.words.contains(name) => {
                    add(resolve(modules, id, &import.path, &mut Vec::new()));
                }
                Some(_) => {}
                None => {
                    let Some(Target::Module(of)) =
                        resolve(modules, id, &import.path, &mut Vec::new())
                    else {
                        // The variants of an enum.
                        add(resolve(modules, id, &import.path, &mut Vec::new()));
                        continue;
                    };
                    for word in &module.words {
                        add(lookup(modules, of, word, true, &mut Vec::new()));
                    }
                }
            }
        }
        for path in &module.paths {
            add(resolve(modules, id, path, &mut Vec::new()));
        }
    }
    arrows
}

/// Names that are being looked up, each in its module: one that leads to itself ends there.
type Unresolved = Vec<(usize, String)>;

/// Follows `path`, as it stands in the module `from`. `None` for what is of another crate.
fn resolve(
    modules: &[Module],
    from: usize,
    path: &[String],
    open: &mut Unresolved,
) -> Option<Target> {
    let (first, mut rest) = path.split_first()?;
    let mut module = match first.as_str() {
        "crate" => 0,
        "self" => from,
        "super" => modules[from].parent?,
        name => match lookup(modules, from, name, rest.is_empty(), open)? {
            Target::Module(id) => id,
            item @ Target::Item { .. } => return Some(item),
        },
    };
    while let Some((segment, after)) = rest.split_first() {
        rest = after;
        if segment == "super" {
            module = modules[module].parent?;
            continue;
        }
        match lookup(modules, module, segment, rest.is_empty(), open) {
            Some(Target::Module(id)) => module = id,
            Some(item) => return Some(item),
            // A macro of this module makes it.
            None => {
                return Some(Target::Item {
                    file: modules[module].file.clone(),
                    name: segment.clone(),
                });
            }
        }
    }
    Some(Target::Module(module))
}

/// What `name` means in `module`; a module of that name comes last if nothing follows it in the
/// path.
fn lookup(
    modules: &[Module],
    module: usize,
    name: &str,
    is_last: bool,
    open: &mut Unresolved,
) -> Option<Target> {
    let this = &modules[module];
    let child = this.children.get(name).map(|&id| Target::Module(id));
    let item = this.items.contains(name).then(|| Target::Item {
        file: this.file.clone(),
        name: name.to_owned(),
    });
    let found = if is_last { &item } else { &child };
    if found.is_some() {
        return found.clone();
    }
    let key = (module, name.to_owned());
    if open.contains(&key) {
        return child.or(item);
    }
    open.push(key);
    let found = imported(modules, module, name, is_last, open);
    open.pop();
    found.or(child).or(item)
}

/// What `name` means in `module` by one of its imports.
fn imported(
    modules: &[Module],
    module: usize,
    name: &str,
    is_last: bool,
    open: &mut Unresolved,
) -> Option<Target> {
    let imports = &modules[module].imports;
    for import in imports
        .iter()
        .filter(|import| import.name.as_deref() == Some(name))
    {
        if import.path == [name] {
            continue;
        }
        let found = resolve(modules, module, &import.path, open);
        if found.is_some() {
            return found;
        }
    }
    for import in imports.iter().filter(|import| import.name.is_none()) {
        if let Some(Target::Module(of)) = resolve(modules, module, &import.path, open)
            && of != module
        {
            let found = lookup(modules, of, name, is_last, open);
            if found.is_some() {
                return found;
            }
        }
    }
    None
}
