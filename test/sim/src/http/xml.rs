//! A writer for the little XML that EC2 speaks: elements and text, no attributes but the namespace.

use std::fmt::Display;

/// XML being written.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    /// Writes a whole document whose root has a namespace.
    pub(super) fn document(&mut self, name: &str, namespace: &str, inside: impl FnOnce(&mut Self)) {
        self.0.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.0.push_str(&format!("<{name} xmlns=\"{namespace}\">"));
        inside(self);
        self.0.push_str(&format!("</{name}>"));
    }

    /// Writes a whole document without a namespace.
    pub(super) fn root(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.0.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.element(name, inside);
    }

    /// Writes an element with others inside.
    pub(super) fn element(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{name}>"));
        inside(self);
        self.0.push_str(&format!("</{name}>"));
    }

    /// Writes an element with text.
    pub(super) fn leaf(&mut self, name: &str, text: impl Display) {
        self.element(name, |xml| xml.text(&text.to_string()));
    }

    /// Writes a list: an element with one `item` for each thing.
    pub(super) fn list<T>(&mut self, name: &str, things: impl IntoIterator<Item = T>, each: impl Fn(&mut Self, T)) {
        self.element(name, |xml| {
            for thing in things {
                xml.element("item", |xml| each(xml, thing));
            }
        });
    }

    /// The usual answer of a call that has nothing to say.
    pub(super) fn done(&mut self) {
        self.leaf("return", true);
    }

    /// Where the next page begins, if there is one.
    pub(super) fn next_token(&mut self, token: Option<&str>) {
        if let Some(token) = token {
            self.leaf("nextToken", token);
        }
    }

    fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\n' | '\t' => self.0.push(character),
                // A raw carriage return would be read as a line feed.
                '\r' => self.0.push_str("&#13;"),
                // XML 1.0 has no way to write other control characters.
                other if other.is_control() => self.0.push('\u{fffd}'),
                other => self.0.push(other),
            }
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}
