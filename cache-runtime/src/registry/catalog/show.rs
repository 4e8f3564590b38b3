//! The catalog for people: a text table and a Mermaid diagram.

use std::fmt::{self, Write as _};

use super::{CachedFunction, Catalog, InvalidationTarget, ResourceUsers, SourceLocation};

/// A table, grouped by resource.
impl fmt::Display for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<Row> = Vec::new();
        for (resource, ResourceUsers { readers, writers }) in self.by_resource() {
            rows.push(Row::Resource(resource.to_owned()));
            for reader in readers {
                rows.push(Row::function(
                    "reads",
                    key(reader),
                    options(reader),
                    &reader.function,
                    &reader.place,
                ));
            }
            for (writer, target) in writers {
                let tags = writer.tags.iter().map(|tag| format!("tag {tag}"));
                let crash_safe = writer.crash_safe.then(|| "crash_safe".to_owned());
                let options: Vec<String> = tags.chain(crash_safe).collect();
                rows.push(Row::function(
                    "invalidates",
                    name(target),
                    options.join(", "),
                    &writer.function,
                    &writer.place,
                ));
            }
        }
        for writer in self
            .writers
            .iter()
            .filter(|writer| writer.targets.is_empty())
        {
            rows.push(Row::Resource("tags".to_owned()));
            let tags = writer.tags.join(", ");
            rows.push(Row::function(
                "invalidates",
                tags,
                String::new(),
                &writer.function,
                &writer.place,
            ));
        }
        let widths: [usize; 4] = std::array::from_fn(|column| {
            rows.iter().map(|row| row.width(column)).max().unwrap_or(0)
        });
        for (n, row) in rows.iter().enumerate() {
            match row {
                Row::Resource(resource) if n == 0 => writeln!(f, "{resource}")?,
                Row::Resource(resource) => writeln!(f, "\n{resource}")?,
                Row::Function(cells) => {
                    let mut line = String::new();
                    for (cell, width) in cells.iter().zip(widths) {
                        let _ = write!(line, "  {cell:width$}");
                    }
                    let _ = write!(line, "  {}", cells[4]);
                    writeln!(f, "{}", line.trim_end())?;
                }
            }
        }
        Ok(())
    }
}

enum Row {
    Resource(String),
    /// Role, key, options, function, place.
    Function([String; 5]),
}

impl Row {
    fn function(
        role: &str,
        key: String,
        options: String,
        function: &str,
        place: &SourceLocation,
    ) -> Self {
        let place = format!("{}:{}", place.file, place.line);
        Self::Function([role.to_owned(), key, options, function.to_owned(), place])
    }

    fn width(&self, column: usize) -> usize {
        match self {
            Self::Resource(_) => 0,
            Self::Function(cells) => cells[column].chars().count(),
        }
    }
}

fn key(reader: &CachedFunction) -> String {
    format!("{}:{}", reader.resource, reader.key)
}

fn name(target: &InvalidationTarget) -> String {
    match &target.id {
        Some(id) => format!("{}:{id}", target.resource),
        None => target.resource.clone(),
    }
}

fn options(reader: &CachedFunction) -> String {
    let mut options = Vec::new();
    options.extend(reader.ttl.as_ref().map(|ttl| format!("ttl {ttl}")));
    options.extend(reader.depends.iter().map(|name| format!("depends {name}")));
    options.extend(reader.tags.iter().map(|tag| format!("tag {tag}")));
    options.extend(reader.shared.then(|| "shared".to_owned()));
    options.extend(reader.batch.then(|| "batch".to_owned()));
    options.join(", ")
}

impl Catalog {
    /// A [Mermaid](https://mermaid.js.org) flow chart: from the writers through the resources to
    /// the cached functions.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        let mut node = Nodes::default();
        for (resource, ResourceUsers { readers, writers }) in self.by_resource() {
            let resource = node.of(&mut out, "resource", resource, ("[(", ")]"));
            for (writer, target) in writers {
                let label = format!("{}:{}", writer.place.file, writer.place.line);
                let from = node.of(&mut out, &label, &writer.function, ("[", "]"));
                let label = target.id.as_deref().unwrap_or("all");
                let _ = writeln!(out, "  {from} -->|\"{}\"| {resource}", escaped(label));
            }
            for reader in readers {
                let label = format!(
                    "{}:{} {}",
                    reader.place.file,
                    reader.place.line,
                    key(reader)
                );
                let text = format!("{}<br/>{}", reader.function, escaped(&key(reader)));
                let to = node.of(&mut out, &label, &text, ("(", ")"));
                let _ = writeln!(out, "  {resource} --> {to}");
                for other in &reader.depends {
                    let other = node.of(&mut out, "resource", other, ("[(", ")]"));
                    let _ = writeln!(out, "  {other} -.-> {to}");
                }
            }
        }
        out
    }
}

/// The nodes so far. Each one is drawn once.
#[derive(Default)]
struct Nodes(Vec<(String, String)>);

impl Nodes {
    fn of(
        &mut self,
        out: &mut String,
        place: &str,
        text: &str,
        (open, close): (&str, &str),
    ) -> String {
        let known = self.0.iter().position(|(p, t)| p == place && t == text);
        let n = known.unwrap_or_else(|| {
            self.0.push((place.to_owned(), text.to_owned()));
            let n = self.0.len() - 1;
            let text = if text.contains("<br/>") {
                text.to_owned()
            } else {
                escaped(text)
            };
            let _ = writeln!(out, "  n{n}{open}\"{text}\"{close}");
            n
        });
        format!("n{n}")
    }
}

/// Escapes a text for use between quotes in a diagram.
fn escaped(text: &str) -> String {
    let text = text.replace('#', "#35;").replace('"', "#quot;");
    text.replace('<', "#lt;").replace('>', "#gt;")
}

#[cfg(test)]
mod tests {
    use super::super::test_map;
    use crate::registry::{Role, Site};

    fn catalog() -> super::Catalog {
        test_map(&[
            Site::new(Role::Reads, "get", "users:{id: i64}, ttl 300"),
            Site::new(Role::Reads, "list", "users:list, depends teams"),
            Site::new(Role::Writes, "rename", "users:{id: i64}"),
        ])
    }

    #[test]
    fn the_table_has_a_line_for_each_function() {
        let text = catalog().to_string();
        let lines: Vec<&str> = text
            .lines()
            .map(|line| line.split("  cache-").next().unwrap_or(line).trim_end())
            .collect();
        assert_eq!(
            lines,
            [
                "users",
                "  reads        users:{id: i64}  ttl 300        get",
                "  reads        users:list       depends teams  list",
                "  invalidates  users:{id: i64}                 rename",
            ]
        );
    }

    #[test]
    fn the_diagram_draws_each_thing_once() {
        assert_eq!(
            catalog().to_mermaid(),
            "flowchart LR
  n0[(\"users\")]
  n1[\"rename\"]
  n1 -->|\"{id: i64}\"| n0
  n2(\"get<br/>users:{id: i64}\")
  n0 --> n2
  n3(\"list<br/>users:list\")
  n0 --> n3
  n4[(\"teams\")]
  n4 -.-> n3
"
        );
    }
}
