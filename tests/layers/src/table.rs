//! The table of layers, `docs/layers.txt`.

use std::collections::BTreeSet;

use crate::Arrows;

/// The layers of one crate.
#[derive(Debug)]
pub(crate) struct LayerTable {
    /// The crate's folder.
    pub(crate) name: String,
    /// Whether what breaks it is a fault, or only reported.
    pub(crate) enforced: bool,
    /// From the top down: the files and folders (with a `/` at the end) of each.
    layers: Vec<Vec<String>>,
}

impl LayerTable {
    /// Reads the tables of all crates.
    ///
    /// # Panics
    /// On a line before the first heading: it is a mistake in a file of this repository.
    pub(crate) fn parse(text: &str) -> Vec<Self> {
        let mut tables: Vec<Self> = Vec::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some((name, note)) = line.strip_prefix('[').and_then(|line| line.split_once(']'))
            {
                tables.push(Self {
                    name: name.to_owned(),
                    enforced: note.trim() != "reported only",
                    layers: Vec::new(),
                });
            } else {
                let table = tables
                    .last_mut()
                    .expect("a `[crate]` comes before its layers");
                let layer = line.split_whitespace().map(ToOwned::to_owned).collect();
                table.layers.push(layer);
            }
        }
        tables
    }

    /// The layer of a file, 0 at the top: that of the longest entry that covers it.
    fn layer(&self, file: &str) -> Option<usize> {
        let layers = self.layers.iter().enumerate();
        let entries = layers.flat_map(|(layer, entries)| entries.iter().map(move |e| (layer, e)));
        entries
            .filter(|(_, entry)| covers(entry, file))
            .max_by_key(|(_, entry)| entry.len())
            .map(|(layer, _)| layer)
    }

    /// The layer of a file, counted from 1 at the bottom.
    pub(crate) fn describe(&self, file: &str) -> String {
        self.layer(file).map_or_else(
            || "none".to_owned(),
            |layer| (self.layers.len() - layer).to_string(),
        )
    }

    /// The imports from a lower layer of a higher one.
    pub(crate) fn upwards(&self, arrows: &Arrows) -> Vec<(String, String)> {
        let looks_up = |(from, to): &&(String, String)| match (self.layer(from), self.layer(to)) {
            (Some(from), Some(to)) => to < from,
            _ => false,
        };
        arrows.keys().filter(looks_up).cloned().collect()
    }

    /// The files without a layer, and the entries without a file.
    pub(crate) fn misplaced(&self, files: &BTreeSet<&str>) -> Vec<String> {
        let homeless = files.iter().filter(|file| self.layer(file).is_none());
        let homeless = homeless.map(|file| format!("{file} is in no layer"));
        let entries = self.layers.iter().flatten();
        let empty = entries.filter(|entry| !files.iter().any(|file| covers(entry, file)));
        homeless
            .chain(empty.map(|entry| format!("the layer's `{entry}` is no file or folder")))
            .collect()
    }
}

fn covers(entry: &str, file: &str) -> bool {
    entry == file || (entry.ends_with('/') && file.starts_with(entry))
}
