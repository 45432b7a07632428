//! Names and relative paths: the lexical half of "nothing leaves the root".
//!
//! A [`RelPath`] is a sequence of checked [`Name`]s joined by `/`. It has no root, no `.`, no `..`,
//! no empty part and no NUL byte, and it is bytes: a name need not be UTF-8. The empty path is the
//! tree's own root. This stops lexical escapes only; links are stopped by `fastcp-sys`, which opens
//! every path beneath a root descriptor. Both are needed.

use std::fmt;

/// The longest path in bytes. The kernel's `PATH_MAX` is 4096 and counts the closing NUL.
pub const PATH_BYTES_MAX: usize = 4095;

/// The longest name in bytes: `NAME_MAX` of `limits.h`.
pub const NAME_BYTES_MAX: usize = 255;

/// Why bytes are not a path within a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Starts with `/`.
    #[error("path is absolute")]
    Absolute,
    /// Holds an empty part, as in `a//b` or `a/`.
    #[error("path has an empty component")]
    EmptyPart,
    /// Holds a part `.` or `..`.
    #[error("path contains \".\" or \"..\"")]
    DotPart,
    /// Holds a NUL byte.
    #[error("path contains a NUL byte")]
    Nul,
    /// A name holds a `/`.
    #[error("name contains a slash")]
    Slash,
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("path is longer than {PATH_BYTES_MAX} bytes")]
    PathTooLong,
    /// A part is longer than [`NAME_BYTES_MAX`].
    #[error("name is longer than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
}

/// One part of a path: never empty, `.`, `..`, and without `/` and NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes` as a single name.
    ///
    /// # Errors
    /// The rule that `bytes` breaks.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        check_name(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// As [`Name::new`], without a copy.
    ///
    /// # Errors
    /// The bytes, where they break a rule.
    pub fn from_vec(bytes: Vec<u8>) -> Result<Self, Vec<u8>> {
        match check_name(&bytes) {
            Ok(()) => Ok(Self(bytes.into())),
            Err(_) => Err(bytes),
        }
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Escaped(&self.0))
    }
}

/// A path relative to a tree's root; empty for the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The tree's root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks `bytes` as a relative path. Empty bytes are the root.
    ///
    /// # Errors
    /// The first rule that `bytes` breaks.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::PathTooLong);
        }
        if bytes.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        if !bytes.is_empty() {
            bytes.split(|&byte| byte == b'/').try_for_each(check_name)?;
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes of the path, without a leading or closing slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the tree's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// This path with `name` below it. It may become too long to be sent, or for a system call: see
    /// [`RelPath::is_too_long`].
    pub fn join(&self, name: &Name) -> Self {
        self.append(&name.0)
    }

    /// This path with all of `below` below it, with the same reservation.
    pub fn join_path(&self, below: &Self) -> Self {
        if below.is_root() { self.clone() } else { self.append(&below.0) }
    }

    /// Whether it is longer than [`PATH_BYTES_MAX`]. Paths that are read never are; what is joined may be.
    pub fn is_too_long(&self) -> bool {
        self.0.len() > PATH_BYTES_MAX
    }

    /// How long the path of a name of so many bytes would be below this one.
    pub fn joined_bytes(&self, name_bytes: usize) -> usize {
        if self.is_root() { name_bytes } else { self.0.len() + 1 + name_bytes }
    }

    /// Whether it is `above`, or something in it.
    pub fn is_within(&self, above: &Self) -> bool {
        match self.as_bytes().strip_prefix(above.as_bytes()) {
            Some(rest) => above.is_root() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        }
    }

    /// The path above and the last name; `None` for the root.
    pub fn split(&self) -> Option<(Self, Name)> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = match cut {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&self.0[..0], &self.0[..]),
        };
        Some((Self(parent.into()), Name(name.into())))
    }

    /// The names from the root downwards; none for the root.
    pub fn names(&self) -> impl Iterator<Item = Name> + '_ {
        self.0.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).map(|part| Name(part.into()))
    }

    fn append(&self, below: &[u8]) -> Self {
        if self.is_root() {
            return Self(below.into());
        }
        let mut joined = Vec::with_capacity(self.joined_bytes(below.len()));
        joined.extend_from_slice(&self.0);
        joined.push(b'/');
        joined.extend_from_slice(below);
        Self(joined.into())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { Escaped(&self.0).fmt(f) }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn check_name(bytes: &[u8]) -> Result<(), PathError> {
    match bytes {
        [] => return Err(PathError::EmptyPart),
        b"." | b".." => return Err(PathError::DotPart),
        _ => {}
    }
    if bytes.len() > NAME_BYTES_MAX {
        return Err(PathError::NameTooLong);
    }
    if bytes.contains(&0) {
        return Err(PathError::Nul);
    }
    if bytes.contains(&b'/') {
        return Err(PathError::Slash);
    }
    Ok(())
}

/// Bytes as they may be shown: control characters, backslashes and what is not UTF-8 become `\xNN`
/// (a backslash becomes `\\`), so that a name can neither move a terminal's cursor nor forge a log line.
pub struct Escaped<'a>(
    /// The bytes to show.
    pub &'a [u8],
);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.utf8_chunks() {
            for character in part.valid().chars() {
                write_escaped(f, character)?;
            }
            for byte in part.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl Escaped<'_> {
    /// The bytes that were shown as `text`; `None` where it holds an escape that is never written.
    pub fn undo(text: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((&first, after)) = rest.split_first() {
            let (byte, after) = match (first, after) {
                (b'\\', [b'\\', after @ ..]) => (b'\\', after),
                (b'\\', [b'x', high, low, after @ ..]) => (hex_digit(*high)? << 4 | hex_digit(*low)?, after),
                (b'\\', _) => return None,
                _ => (first, after),
            };
            bytes.push(byte);
            rest = after;
        }
        Some(bytes)
    }
}

/// The value of a hex digit as it is written here: in small letters.
pub fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    use fmt::Write as _;
    match character {
        '\\' => f.write_str("\\\\"),
        _ if character.is_control() || is_bidi_override(character) => {
            let mut utf8 = [0; 4];
            character.encode_utf8(&mut utf8).bytes().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        }
        _ => f.write_char(character),
    }
}

/// Characters that reorder the text after them: they can disguise one name as another.
fn is_bidi_override(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::{Escaped, Name, PATH_BYTES_MAX, PathError, RelPath};

    #[test]
    fn paths_that_could_leave_the_root_are_refused() {
        for (bytes, error) in [
            (&b"/a"[..], PathError::Absolute),
            (b"a//b", PathError::EmptyPart),
            (b"a/", PathError::EmptyPart),
            (b"..", PathError::DotPart),
            (b"a/../b", PathError::DotPart),
            (b"a/.", PathError::DotPart),
            (b"a\0b", PathError::Nul),
            (&[b'a'; 256], PathError::NameTooLong),
        ] {
            assert_eq!(RelPath::new(bytes), Err(error), "{}", Escaped(bytes));
        }
        assert_eq!(RelPath::new(&[b'/'; 5000]), Err(PathError::PathTooLong));
        assert_eq!(Name::new(b"a/b"), Err(PathError::Slash));
    }

    #[test]
    fn odd_but_lawful_names_are_kept_byte_for_byte() {
        for bytes in [&b"a..b"[..], b"...", b"new\nline", b"\xff\xfe", b" ", b"-rf", b"a/..b/c"] {
            assert_eq!(RelPath::new(bytes).expect("lawful").as_bytes(), bytes);
        }
    }

    #[test]
    fn join_and_split_are_inverse() {
        let path = RelPath::new(b"a/b").expect("lawful");
        let name = Name::new(b"c").expect("lawful");
        let joined = path.join(&name);
        assert_eq!(joined.as_bytes(), b"a/b/c");
        assert_eq!(joined.split(), Some((path, name)));
        assert_eq!(RelPath::root().split(), None);
        assert_eq!(joined.names().count(), 3);
        assert_eq!(RelPath::root().names().count(), 0);
    }

    #[test]
    fn a_path_that_has_grown_too_long_is_told_apart() {
        let long = RelPath::new(&[b"x/".repeat(2047), b"y".to_vec()].concat()).expect("fits");
        assert_eq!(long.as_bytes().len(), PATH_BYTES_MAX);
        let name = Name::new(b"abc").expect("lawful");
        assert!(!long.is_too_long() && long.join(&name).is_too_long());
        assert_eq!(long.join(&name).as_bytes().len(), long.joined_bytes(3));
        assert_eq!(RelPath::new(long.join(&name).as_bytes()), Err(PathError::PathTooLong));
    }

    #[test]
    fn what_was_escaped_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&all[..], b"a\\x41\n", "x\u{202e}y\u{e9}".as_bytes(), b"\xff\xfe\\", b""] {
            let text = Escaped(bytes).to_string();
            assert!(!text.contains('\n'));
            assert_eq!(Escaped::undo(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
        for wrong in ["\\", "\\x", "\\x4", "\\xG0", "\\x4A", "\\n", "a\\"] {
            assert_eq!(Escaped::undo(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn escapes_cannot_forge_a_line() {
        assert_eq!(Escaped(b"a\nb\x1b[2J\\\xff\xc3\xa9").to_string(), "a\\x0ab\\x1b[2J\\\\\\xff\u{e9}");
        assert_eq!(Escaped("x\u{202e}y".as_bytes()).to_string(), "x\\xe2\\x80\\xaey");
    }
}
