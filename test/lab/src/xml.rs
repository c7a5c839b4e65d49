//! XML answers as a tree: as much as EC2's query protocol needs.

use quick_xml::{Reader, events::Event};

use crate::LabError;

/// One element: its text and the elements inside it, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Tag without namespace prefix.
    pub name: String,
    /// Text directly inside, trimmed. May be empty.
    pub text: String,
    /// Elements directly inside.
    pub children: Vec<Element>,
}

impl Element {
    /// Reads a document and returns its outermost element.
    ///
    /// # Errors
    /// [`LabError::Answer`] when it is not well-formed XML.
    pub fn parse(document: &str) -> Result<Self, LabError> {
        let garbled = |_| LabError::Answer { what: "an XML document", answer: document.to_owned() };
        let mut reader = Reader::from_str(document);
        let mut open = vec![Self::default()];
        loop {
            match reader.read_event().map_err(garbled)? {
                Event::Start(tag) => open.push(Self::named(tag.local_name().as_ref())),
                Event::Empty(tag) => close(&mut open, Self::named(tag.local_name().as_ref())),
                Event::End(_) => {
                    if let Some(done) = open.pop() {
                        close(&mut open, done);
                    }
                }
                Event::Text(text) => {
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(text.decode().map_err(|e| garbled(e.into()))?.trim());
                    }
                }
                Event::Eof => break,
                Event::CData(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_)
                | Event::GeneralRef(_) => {}
            }
        }
        open.pop()
            .and_then(|mut root| root.children.pop())
            .ok_or_else(|| LabError::Answer { what: "an XML document", answer: document.to_owned() })
    }

    /// The first element at the end of `path`, whose parts are separated by `/`.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |element, name| element.children.iter().find(|child| child.name == name))
    }

    /// The text at the end of `path`; empty when there is no such element.
    #[must_use]
    pub fn text_at(&self, path: &str) -> &str {
        self.at(path).map_or("", |element| &element.text)
    }

    /// The elements inside the one at the end of `path`; none when there is no such element.
    #[must_use]
    pub fn list_at(&self, path: &str) -> &[Self] {
        self.at(path).map_or(&[], |element| &element.children)
    }

    fn named(name: &[u8]) -> Self {
        Self { name: String::from_utf8_lossy(name).into_owned(), ..Self::default() }
    }
}

fn close(open: &mut [Element], done: Element) {
    if let Some(parent) = open.last_mut() {
        parent.children.push(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_by_path() {
        let root = Element::parse("<?xml version='1.0'?><R xmlns='x'><a><b> 1 </b><b>2</b></a><empty/></R>").unwrap();
        assert_eq!(root.name, "R");
        assert_eq!(root.text_at("a/b"), "1");
        assert_eq!(root.list_at("a").len(), 2);
        assert_eq!((root.text_at("empty"), root.text_at("nothing/here")), ("", ""));
    }

    #[test]
    fn text_that_is_not_xml_is_refused() {
        assert!(Element::parse("<a></b>").is_err());
        assert!(Element::parse("").is_err());
    }
}
