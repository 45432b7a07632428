//! The pattern of a rule: which part of a path it is held against, and whether it matches.

use std::borrow::Cow;

use super::wildcard::Wildcard;
use super::{Candidate, base_name};

/// The longest pattern, in bytes: that of a path.
pub const PATTERN_BYTES_MAX: usize = crate::PATH_BYTES_MAX;

/// Why there is no such pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing would match it.
    #[error("a pattern is empty")]
    Empty,
    /// Longer than any path.
    #[error("a pattern has more than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
}

/// How a pattern is held against a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    /// Against the last component: the pattern has no slash.
    Name,
    /// Against all of it: the pattern is anchored by a leading slash, or begins with `**`.
    Whole,
    /// Against so many components at its end.
    Tail(usize),
    /// Against all of it and against what is behind each slash: there is a `**` in it.
    BehindAnySlash,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Matcher {
    /// No wildcards: a backslash is a backslash.
    Literal(Box<[u8]>),
    Wild(Wildcard),
}

/// A directory that patterns with a leading slash begin in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Anchor {
    /// By its path from where the transfer begins.
    Below(Box<[u8]>),
    /// By its path from the root of the tree: it is above that.
    Above(Box<[u8]>),
}

/// A pattern of rsync's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<[u8]>,
    is_absolute: bool,
    is_negated: bool,
    /// Of an anchored pattern: the directory that it is anchored at.
    anchor: Anchor,
    is_for_dirs: bool,
    part: Part,
    /// It begins with `**`, so a slash is put in front of the path: `**/x` matches at the top as well.
    has_slash_in_front: bool,
    /// It ends with `***`, so a directory has a slash behind its name: `x/***` matches `x` as well.
    has_slash_behind: bool,
    matcher: Matcher,
}

impl Pattern {
    /// Compiles a pattern, of a rule without modifiers.
    ///
    /// # Errors
    /// An empty or overlong pattern.
    pub fn new(text: &[u8]) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let (body, is_for_dirs) = match text {
            [body @ .., b'/'] if !body.is_empty() => (body, true),
            body => (body, false),
        };
        let slashes = body.iter().filter(|&&byte| byte == b'/').count();
        let is_wild = body.iter().any(|byte| b"*?[".contains(byte));
        let has_double = body.windows(2).any(|two| two == b"**");
        let begins_with_double = body.starts_with(b"**");
        let (bare, is_anchored) = body.strip_prefix(b"/").map_or((body, false), |bare| (bare, true));
        let part = match (slashes, has_double) {
            (0, false) => Part::Name,
            _ if is_anchored || begins_with_double => Part::Whole,
            (slashes, false) => Part::Tail(slashes + 1),
            _ => Part::BehindAnySlash,
        };
        Ok(Self {
            text: text.into(),
            is_absolute: false,
            is_negated: false,
            anchor: Anchor::Below(Box::default()),
            is_for_dirs,
            part,
            has_slash_in_front: begins_with_double,
            has_slash_behind: body.ends_with(b"***"),
            matcher: match is_wild {
                true => Matcher::Wild(Wildcard::new(bare)),
                false => Matcher::Literal(bare.into()),
            },
        })
    }

    /// The same for everything that it does not match: the modifier `!`.
    #[must_use]
    pub fn negated(self, is_negated: bool) -> Self {
        Self { is_negated, ..self }
    }

    /// The same held against absolute paths: the modifier `/`.
    #[must_use]
    pub fn absolute(self, is_absolute: bool) -> Self {
        Self { is_absolute, ..self }
    }

    /// The same, anchored at this directory where it is anchored: that of the file which it is from.
    #[must_use]
    pub fn anchored_at(self, dir: &[u8]) -> Self {
        Self { anchor: Anchor::Below(dir.into()), ..self }
    }

    /// The same for a directory above where the transfer begins, by its path from the root of the tree.
    #[must_use]
    pub fn anchored_above(self, dir: &[u8]) -> Self {
        Self { anchor: Anchor::Above(dir.into()), ..self }
    }

    /// As it was written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether it is held against absolute paths.
    pub fn is_absolute(&self) -> bool {
        self.is_absolute
    }

    /// Whether it stands for what it does not match.
    pub fn is_negated(&self) -> bool {
        self.is_negated
    }

    /// Whether what it matches depends on what kind of entry that is.
    pub fn depends_on_kind(&self) -> bool {
        self.is_for_dirs || self.has_slash_behind
    }

    /// Whether a rule with this pattern is about the entry.
    pub fn matches(&self, entry: &Candidate<'_>) -> bool {
        self.matches_bare(entry) != self.is_negated
    }

    fn matches_bare(&self, entry: &Candidate<'_>) -> bool {
        if self.is_for_dirs && !entry.is_dir {
            return false;
        }
        let is_anchored = self.text.starts_with(b"/");
        match (self.part, &self.anchor) {
            (Part::Name, _) => self.fits(base_name(entry.path), entry),
            (Part::Whole, _) if self.is_absolute => self.fits(&absolute(entry), entry),
            (Part::Whole, Anchor::Below(dir)) if is_anchored => {
                below(entry.path, dir).is_some_and(|path| self.fits(path, entry))
            }
            (Part::Whole, Anchor::Above(dir)) if is_anchored => {
                below(&absolute(entry), dir).is_some_and(|path| self.fits(path, entry))
            }
            (Part::Whole, _) => self.fits(entry.path, entry),
            (Part::Tail(_) | Part::BehindAnySlash, _) if self.is_absolute => self.fits_behind(&absolute(entry), entry),
            (Part::Tail(_) | Part::BehindAnySlash, _) => self.fits_behind(entry.path, entry),
        }
    }

    fn fits_behind(&self, path: &[u8], entry: &Candidate<'_>) -> bool {
        match self.part {
            Part::Tail(components) => {
                let mut slashes = path.iter().enumerate().rev().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
                match slashes.nth(components - 1) {
                    Some(at) => self.fits(&path[at + 1..], entry),
                    None => {
                        let own = path.iter().filter(|&&byte| byte == b'/').count() + 1;
                        own == components && self.fits(path, entry)
                    }
                }
            }
            _ => {
                let slashes = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at + 1);
                std::iter::once(0).chain(slashes).any(|start| self.fits(&path[start..], entry))
            }
        }
    }

    /// Whether this much of a path matches.
    fn fits(&self, path: &[u8], entry: &Candidate<'_>) -> bool {
        let front: &[u8] = if self.has_slash_in_front { b"/" } else { b"" };
        let behind: &[u8] = if self.has_slash_behind && entry.is_dir { b"/" } else { b"" };
        match &self.matcher {
            Matcher::Literal(text) => **text == *path,
            Matcher::Wild(wildcard) => wildcard.matches(front.iter().chain(path).chain(behind).copied()),
        }
    }
}

/// The path from the root of the tree.
fn absolute<'e>(entry: &Candidate<'e>) -> Cow<'e, [u8]> {
    match entry.above {
        [] => Cow::Borrowed(entry.path),
        above => Cow::Owned([above, b"/", entry.path].concat()),
    }
}

/// What is behind a directory in a path.
fn below<'p>(path: &'p [u8], dir: &[u8]) -> Option<&'p [u8]> {
    match dir {
        [] => Some(path),
        dir => path.strip_prefix(dir)?.strip_prefix(b"/"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Pattern, PatternError};

    fn matches(pattern: &str, path: &str) -> bool {
        let is_dir = path.ends_with('/');
        let path = path.trim_end_matches('/').as_bytes();
        let pattern = Pattern::new(pattern.as_bytes()).expect("lawful");
        pattern.matches(&Candidate { path, above: b"", is_dir })
    }

    #[test]
    fn a_pattern_is_held_against_what_its_slashes_say() {
        for (pattern, path, expected) in [
            ("foo", "foo", true),
            ("foo", "a/foo", true),
            ("foo", "foobar", false),
            ("foo", "foo/a", false),
            ("/foo", "foo", true),
            ("/foo", "a/foo", false),
            ("foo/", "foo", false),
            ("foo/", "a/foo/", true),
            ("a/foo", "a/foo", true),
            ("a/foo", "b/a/foo", true),
            ("a/foo", "ba/foo", false),
            ("a/*.c", "x/a/b.c", true),
            ("a/*.c", "x/a/y/b.c", false),
            ("/a/*.c", "x/a/b.c", false),
            ("a**c", "x/a/y/c", true),
            ("a**c", "xa/y/c", false),
            ("**/foo", "foo", true),
            ("**/foo", "a/b/foo", true),
            ("**foo", "a/xfoo", true),
            ("/**/foo", "foo", false),
            ("dir/***", "dir/", true),
            ("dir/***", "dir", false),
            ("dir/***", "x/dir/a/b", true),
            ("dir/**", "dir/", false),
            ("dir/**", "dir/a", true),
            ("/dir/***", "x/dir/", false),
            ("*", "a/b", true),
            ("a\\b", "a\\b", true),
            ("a\\*", "a*", true),
            ("/", "a/", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn modifiers_turn_a_pattern_round_and_anchor_it_elsewhere() {
        let pattern = |text: &str| Pattern::new(text.as_bytes()).expect("lawful");
        let below = Candidate { path: b"sub/foo", above: b"home/me", is_dir: false };
        for (pattern, expected) in [
            (pattern("foo").negated(true), false),
            (pattern("bar").negated(true), true),
            (pattern("/home/me/sub/foo").absolute(true), true),
            (pattern("/sub/foo").absolute(true), false),
            (pattern("me/sub/*").absolute(true), true),
            (pattern("me/sub/*"), false),
            (pattern("/foo").anchored_at(b"sub"), true),
            (pattern("/foo").anchored_at(b"su"), false),
            (pattern("/foo").anchored_at(b""), false),
            (pattern("foo").anchored_at(b"elsewhere"), true),
            (pattern("/home/**").absolute(true).anchored_at(b"sub"), true),
        ] {
            assert_eq!(pattern.matches(&below), expected, "{pattern:?}");
        }
    }

    #[test]
    fn patterns_have_something_in_them() {
        assert_eq!(Pattern::new(b""), Err(PatternError::Empty));
        assert_eq!(Pattern::new(&[b'a'; 5000]), Err(PatternError::TooLong));
    }
}
