//! Netlink attributes as bytes: a builder, and a reader that skips what it does not know.

/// Set on the kind of an attribute that holds attributes. Source: linux/netlink.h.
pub(crate) const NESTED: u16 = 1 << 15;
/// Kind without its two flag bits.
const KIND_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// A growing list of attributes, each padded to four bytes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Appends an attribute with these bytes.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // No attribute here comes near 64 KiB but a list of set elements, which its caller cuts into pieces.
        let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends text with the zero byte that the kernel expects.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Appends a number in network byte order, as nf_tables wants all of its numbers.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends a number in the machine's byte order, as rtnetlink wants all of its numbers.
    pub(crate) fn ne32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute that holds attributes.
    pub(crate) fn nested(self, kind: u16, inner: Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// Takes all bytes out.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Walks over attributes; ends at the first one that does not fit.
pub(crate) fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Returns the value of the first attribute of this kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    read(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Whether each of the `wanted` attributes is among those that were `told`, with the same value or one that includes it.
pub(crate) fn includes(told: &[u8], wanted: &[u8]) -> bool {
    let nested = |told, wanted| read(wanted).next().is_some() && includes(told, wanted);
    read(wanted).all(|(kind, value)| find(told, kind).is_some_and(|told| told == value || nested(told, value)))
}

/// Reads text that may end in a zero byte.
pub(crate) fn as_text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Reads a number in the machine's byte order.
pub(crate) fn as_ne32(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_reads_back() {
        let bytes = Attributes::new().text(1, "a").nested(2, Attributes::new().be32(7, 5)).ne32(3, 9).into_bytes();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(find(&bytes, 1).map(as_text).as_deref(), Some("a"));
        assert_eq!(find(&bytes, 2).and_then(|inner| find(inner, 7)).map(<[u8]>::to_vec), Some(vec![0, 0, 0, 5]));
        assert_eq!(find(&bytes, 3).and_then(as_ne32), Some(9));
        assert_eq!(find(&bytes, 4), None);
    }

    #[test]
    fn what_is_told_may_say_more_but_not_something_else() {
        let list = |number| Attributes::new().nested(1, Attributes::new().be32(1, 7).be32(2, number)).into_bytes();
        let more = Attributes::new().text(9, "x").nested(1, Attributes::new().be32(3, 0).be32(2, 5).be32(1, 7));
        assert!(includes(&more.into_bytes(), &list(5)));
        assert!(includes(&list(5), &list(5)));
        assert!(!includes(&list(5), &list(6)));
        assert!(!includes(&[], &list(5)));
    }

    #[test]
    fn a_damaged_list_ends_instead_of_failing() {
        for bytes in [&[][..], &[9], &[8, 0, 1, 0], &[0, 0, 1, 0], &[255, 255, 1, 0, 0, 0]] {
            assert_eq!(read(bytes).count(), 0, "{bytes:?}");
        }
    }
}
