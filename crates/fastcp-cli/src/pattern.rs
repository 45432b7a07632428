//! Patterns of one name, as a shell has them: `*`, `?` and `[...]`; a backslash takes the next one as it is.

/// A pattern.
pub(crate) struct Pattern(Vec<u8>);

/// Whether a name holds anything that a pattern is made of.
pub(crate) fn is_pattern(name: &[u8]) -> bool {
    name.iter().any(|byte| b"*?[".contains(byte))
}

impl Pattern {
    pub(crate) fn new(text: &[u8]) -> Self {
        Self(text.to_vec())
    }

    /// Whether all of the name matches. A name with a dot before it is matched by no `*`, `?` or `[...]` there.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let is_hidden = name.starts_with(b".") && !self.0.starts_with(b".");
        !is_hidden && matches(&self.0, name)
    }
}

/// The last `*` is tried with ever more of the name; those before it need not be tried again.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut done) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while done < name.len() {
        match step(&pattern[at..], name[done]) {
            Step::Star => {
                star = Some((at + 1, done));
                at += 1;
            }
            Step::Taken(length) => (at, done) = (at + length, done + 1),
            Step::Other => match &mut star {
                Some((after, from)) => {
                    *from += 1;
                    (at, done) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

enum Step {
    Star,
    /// So much of the pattern stands for the byte.
    Taken(usize),
    Other,
}

fn step(pattern: &[u8], byte: u8) -> Step {
    match pattern {
        [b'*', ..] => Step::Star,
        [b'?', ..] => Step::Taken(1),
        [b'\\', next, ..] if *next == byte => Step::Taken(2),
        [b'\\', _, ..] => Step::Other,
        [b'[', rest @ ..] => match class(rest, byte) {
            Some((true, length)) => Step::Taken(length + 1),
            Some((false, _)) => Step::Other,
            None if byte == b'[' => Step::Taken(1),
            None => Step::Other,
        },
        [first, ..] if *first == byte => Step::Taken(1),
        _ => Step::Other,
    }
}

/// Whether a class has the byte, and how long the class is; `None` where it does not end.
fn class(text: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let (start, mut has) = (at, false);
    loop {
        match text.get(at..)? {
            [b']', ..] if at > start => return Some((has != negated, at + 1)),
            [low, b'-', high, ..] if *high != b']' => {
                has |= (*low..=*high).contains(&byte);
                at += 3;
            }
            [one, ..] => {
                has |= *one == byte;
                at += 1;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pattern, is_pattern};

    #[test]
    fn names_match_as_in_a_shell() {
        for (pattern, name, matches) in [
            ("*", "abc", true),
            ("*", ".abc", false),
            (".*", ".abc", true),
            ("*.log", "a.b.log", true),
            ("*.log", "a.log.gz", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[-a]", "-", true),
            ("[a", "[a", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("**", "ab", true),
            ("", "", true),
        ] {
            assert_eq!(Pattern::new(pattern.as_bytes()).matches(name.as_bytes()), matches, "{pattern} {name}");
        }
        assert!(is_pattern(b"a*") && !is_pattern(b"a{b}"));
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = Pattern::new("*a".repeat(100).as_bytes());
        assert!(!pattern.matches("a".repeat(99).as_bytes()) && pattern.matches("a".repeat(100).as_bytes()));
    }
}
