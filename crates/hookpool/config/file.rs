//! The TOML file as a layer, with line numbers.

use std::{fs, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Builder, KEYS, Origin};

impl Builder {
    pub(super) fn file(&mut self, path: &Path) {
        let shown = path.display();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.wrong.push(format!("{shown} can't be read: {error}")),
        };
        match DeTable::parse(&text) {
            Ok(table) => File { path, text: &text }.table("", table.get_ref(), self),
            Err(error) => {
                let line = line_at(&text, error.span().map_or(0, |span| span.start));
                self.wrong
                    .push(format!("{shown}:{line}: {}", error.message()));
            }
        }
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn table(&self, prefix: &str, table: &DeTable<'_>, to: &mut Builder) {
        // The parser sorts by name; people read by line.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let full = format!("{prefix}{}", name.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) if prefix.is_empty() => {
                    self.table(&format!("{full}."), inner, to)
                }
                _ => self.value(&full, line_at(self.text, name.span().start), value, to),
            }
        }
    }

    fn value(&self, name: &str, line: usize, value: &Spanned<DeValue<'_>>, to: &mut Builder) {
        let origin = Origin::File {
            path: self.path.to_owned(),
            line,
        };
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return to
                .wrong
                .push(format!("{origin}: there is no such setting: {name}"));
        };
        match value.get_ref() {
            DeValue::String(text) => to.set(key, text.to_string(), origin),
            DeValue::Integer(number) if number.radix() == 10 => {
                to.set(key, number.as_str().to_owned(), origin);
            }
            _ => to
                .wrong
                .push(format!("{origin}: {name} is not a text or a number")),
        }
    }
}

/// The line, from 1, of a byte of the text.
fn line_at(text: &str, byte: usize) -> usize {
    1 + text
        .bytes()
        .take(byte)
        .filter(|byte| *byte == b'\n')
        .count()
}
