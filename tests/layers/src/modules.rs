//! The module tree of a crate, as its tokens say it. Code for tests is left out.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One module, a file or a part of one.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// The file it stands in, from the crate's `src`.
    pub(crate) file: String,
    pub(crate) parent: Option<usize>,
    pub(crate) children: BTreeMap<String, usize>,
    /// What it defines.
    pub(crate) items: BTreeSet<String>,
    pub(crate) imports: Vec<Import>,
    /// The paths of two or more segments in its code.
    pub(crate) paths: BTreeSet<Vec<String>>,
    /// Every identifier in its code outside of imports.
    pub(crate) words: BTreeSet<String>,
}

/// One name of a `use`.
#[derive(Debug, Clone)]
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// What it is called here; `None` for `*`.
    pub(crate) name: Option<String>,
    /// Whether it hands the name on.
    pub(crate) public: bool,
}

/// Reads the crate of which `files` are the sources; `lib.rs` is the root. What no `mod` names is
/// not read.
pub(crate) fn read(files: &BTreeMap<String, String>) -> Vec<Module> {
    let mut modules = vec![Module {
        file: "lib.rs".to_owned(),
        ..Module::default()
    }];
    Reader {
        files,
        modules: &mut modules,
    }
    .file(0, "lib.rs", "");
    modules
}

struct Reader<'a> {
    files: &'a BTreeMap<String, String>,
    modules: &'a mut Vec<Module>,
}

impl Reader<'_> {
    /// Reads `file` as the module `module`, whose children are in `folder`.
    fn file(&mut self, module: usize, file: &str, folder: &str) {
        let text = self.files.get(file).unwrap_or_else(|| panic!("no {file}"));
        let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{file}: {e}"));
        self.tokens(module, folder, tokens, true);
    }

    fn child(&mut self, parent: usize, name: &str, file: &str) -> usize {
        let id = self.modules.len();
        self.modules.push(Module {
            file: file.to_owned(),
            parent: Some(parent),
            ..Module::default()
        });
        self.modules[parent].children.insert(name.to_owned(), id);
        id
    }

    /// `items`: whether definitions in these tokens are the module's own, and not a function's.
    fn tokens(&mut self, module: usize, folder: &str, tokens: TokenStream, items: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let mut public = false;
        while at < tokens.len() {
            let word = ident(tokens.get(at));
            if is_test(&tokens[at..]) {
                at = after_item(&tokens, at);
                continue;
            }
            match word.as_deref() {
                Some("pub") => {
                    public = true;
                    at += 1;
                    // `pub(in crate::a)` imports nothing.
                    if matches!(tokens.get(at), Some(TokenTree::Group(group))
                        if group.delimiter() == Delimiter::Parenthesis
                            && ["crate", "super", "self", "in"].map(Some)
                                .contains(&ident(group.stream().into_iter().next().as_ref()).as_deref()))
                    {
                        at += 1;
                    }
                    continue;
                }
                Some("use") => {
                    let end = (at..tokens.len())
                        .find(|&at| is_punct(tokens.get(at), ';'))
                        .unwrap_or(tokens.len());
                    // `impl Trait + use<'a>` is no import.
                    if !is_punct(tokens.get(at + 1), '<') {
                        self.import(module, &[], &tokens[at + 1..end], public);
                        at = end + 1;
                        public = false;
                        continue;
                    }
                }
                Some("mod") if items => {
                    at = self.module(module, folder, &tokens, at);
                    public = false;
                    continue;
                }
                Some("macro_rules") if items => {
                    if let Some(name) = ident(tokens.get(at + 2)) {
                        self.modules[module].items.insert(name);
                    }
                }
                Some(
                    "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static",
                ) => {
                    let next = ident(tokens.get(at + 1));
                    if let Some(name) = next.filter(|name| items && name != "fn" && name != "mut") {
                        self.modules[module].items.insert(name);
                    }
                }
                _ => {}
            }
            public &= word.is_none();
            at = self.one(module, folder, &tokens, at);
        }
    }

    /// Notes the path or the group that begins at `at`, and returns where the next token is.
    fn one(&mut self, module: usize, folder: &str, tokens: &[TokenTree], at: usize) -> usize {
        if let TokenTree::Group(group) = &tokens[at] {
            self.tokens(module, folder, group.stream(), false);
            return at + 1;
        }
        let Some(first) = ident(tokens.get(at)) else {
            return at + 1;
        };
        let mut path = vec![first];
        let mut next = at + 1;
        while is_punct(tokens.get(next), ':') && is_punct(tokens.get(next + 1), ':') {
            let Some(segment) = ident(tokens.get(next + 2)) else {
                break;
            };
            path.push(segment);
            next += 3;
        }
        let begins_path = at == 0 || !is_punct(tokens.get(at - 1), '.');
        // `::std::x` is of another crate, `Vec::<T>::new` continues a path that was noted.
        let continues =
            at >= 2 && is_punct(tokens.get(at - 1), ':') && is_punct(tokens.get(at - 2), ':');
        for word in &path {
            self.modules[module].words.insert(word.clone());
        }
        if begins_path && !continues && path.len() > 1 {
            self.modules[module].paths.insert(path);
        }
        next
    }

    /// Reads `mod name;` or `mod name { .. }` at `at`, and returns where the next token is.
    fn module(&mut self, parent: usize, folder: &str, tokens: &[TokenTree], at: usize) -> usize {
        let Some(name) = ident(tokens.get(at + 1)) else {
            return at + 1;
        };
        let below = format!("{folder}{name}/");
        if let Some(TokenTree::Group(group)) = tokens.get(at + 2) {
            let file = self.modules[parent].file.clone();
            let id = self.child(parent, &name, &file);
            self.tokens(id, &below, group.stream(), true);
        } else {
            let file = [format!("{folder}{name}.rs"), format!("{below}mod.rs")]
                .into_iter()
                .find(|file| self.files.contains_key(file))
                .unwrap_or_else(|| panic!("no file for `mod {name}` below `{folder}`"));
            let id = self.child(parent, &name, &file);
            self.file(id, &file, &below);
        }
        at + 3
    }

    /// Notes the names of one tree of a `use`, which stands behind `prefix`.
    fn import(&mut self, module: usize, prefix: &[String], tokens: &[TokenTree], public: bool) {
        let mut path = prefix.to_vec();
        let mut at = 0;
        // `use ::krate::x` is of another crate.
        if is_punct(tokens.first(), ':') {
            return;
        }
        let mut name = None;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(_) if ident(tokens.get(at)).as_deref() == Some("as") => {
                    name = ident(tokens.get(at + 1));
                    break;
                }
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Punct(star) if star.as_char() == '*' => {
                    self.modules[module].imports.push(Import {
                        path,
                        name: None,
                        public,
                    });
                    return;
                }
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    for tree in inner.split(|token| is_punct(Some(token), ',')) {
                        if !tree.is_empty() {
                            self.import(module, &path, tree, public);
                        }
                    }
                    return;
                }
                _ => {}
            }
            at += 1;
        }
        // `use a::{self}` names `a`.
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = name.or_else(|| path.last().cloned());
        self.modules[module]
            .imports
            .push(Import { path, name, public });
    }
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// Whether the tokens begin with `#[cfg(test)]` or `#[cfg(all(test, ..))]`.
fn is_test(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] = tokens else {
        return false;
    };
    let text = attribute.stream().to_string().replace(' ', "");
    hash.as_char() == '#' && (text == "cfg(test)" || text.starts_with("cfg(all(test,"))
}

/// Where the item that begins at `at`, with its attributes, has ended.
fn after_item(tokens: &[TokenTree], mut at: usize) -> usize {
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Punct(punct) if matches!(punct.as_char(), ';' | ',') => return at + 1,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                // `use a::{..};` goes on to its semicolon.
                return at + 1 + usize::from(is_punct(tokens.get(at + 1), ';'));
            }
            _ => at += 1,
        }
    }
    at
}
