//! Wildcards of a pattern, matched in time that grows with the pattern's length times the path's, whatever they are.
//!
//! `*` matches anything but a slash, `**` anything, `?` any byte but a slash, `[...]` one of a class but never a slash; a
//! backslash takes the meaning off the next byte. A class takes ranges, `!` or `^` to turn it round, and the names of
//! POSIX, as `[:digit:]`. A class that is not closed matches nothing.

/// One step of a compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Byte(u8),
    /// Any byte but a slash.
    One,
    /// One of these bytes.
    Class(Box<[u64; 4]>),
    /// Any bytes but slashes.
    Star,
    /// Any bytes.
    StarStar,
    /// What nothing matches.
    Never,
}

/// A pattern, ready to be matched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wildcard {
    steps: Vec<Step>,
}

impl Wildcard {
    pub(super) fn new(pattern: &[u8]) -> Self {
        let mut steps = Vec::with_capacity(pattern.len());
        let mut rest = pattern;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            let step = match byte {
                b'*' => {
                    let more = rest.iter().take_while(|&&byte| byte == b'*').count();
                    rest = &rest[more..];
                    if more > 0 { Step::StarStar } else { Step::Star }
                }
                b'?' => Step::One,
                b'[' => match class(rest) {
                    Some((class, behind)) => {
                        rest = behind;
                        Step::Class(Box::new(class))
                    }
                    None => Step::Never,
                },
                b'\\' => match rest.split_first() {
                    Some((&byte, behind)) => {
                        rest = behind;
                        Step::Byte(byte)
                    }
                    None => Step::Never,
                },
                other => Step::Byte(other),
            };
            steps.push(step);
        }
        Self { steps }
    }

    /// Whether all of the text matches.
    pub(super) fn matches(&self, text: impl Iterator<Item = u8>) -> bool {
        // The places in the pattern that the text so far leads to, each once and ascending.
        let (mut places, mut next) = (Vec::new(), Vec::new());
        self.enter(&mut places, 0);
        for byte in text {
            next.clear();
            for &place in &places {
                match self.steps.get(place) {
                    Some(Step::StarStar) => self.enter(&mut next, place),
                    Some(Step::Star) if byte != b'/' => self.enter(&mut next, place),
                    Some(step) if step.takes(byte) => self.enter(&mut next, place + 1),
                    _ => {}
                }
            }
            if next.is_empty() {
                return false;
            }
            std::mem::swap(&mut places, &mut next);
        }
        places.last() == Some(&self.steps.len())
    }

    /// A place is reached, and with it what is behind stars there.
    fn enter(&self, places: &mut Vec<usize>, place: usize) {
        for place in place..=self.steps.len() {
            match places.last() {
                Some(&last) if last >= place => {}
                _ => places.push(place),
            }
            if !matches!(self.steps.get(place), Some(Step::Star | Step::StarStar)) {
                break;
            }
        }
    }
}

impl Step {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::One => byte != b'/',
            Self::Class(class) => has(class, byte),
            Self::Star | Self::StarStar | Self::Never => false,
        }
    }
}

fn has(class: &[u64; 4], byte: u8) -> bool {
    class[usize::from(byte / 64)] >> (byte % 64) & 1 == 1
}

fn remove(class: &mut [u64; 4], byte: u8) {
    class[usize::from(byte / 64)] &= !(1 << (byte % 64));
}

/// The class behind a `[`, and what is behind its `]`; `None` where it is not closed.
fn class(text: &[u8]) -> Option<([u64; 4], &[u8])> {
    let (is_negated, mut rest) = match text {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut class = [0; 4];
    let mut add = |bytes: std::ops::RangeInclusive<u8>| {
        bytes.for_each(|byte| class[usize::from(byte / 64)] |= 1 << (byte % 64));
    };
    let mut is_first = true;
    loop {
        match rest {
            [b']', behind @ ..] if !is_first => {
                rest = behind;
                break;
            }
            [b'[', b':', behind @ ..] if behind.windows(2).any(|two| two == b":]") => {
                let end = behind.windows(2).position(|two| two == b":]")?;
                (0..=u8::MAX).filter(|&byte| is_of(&behind[..end], byte)).for_each(|byte| add(byte..=byte));
                rest = &behind[end + 2..];
            }
            _ => {
                let (from, behind) = member(rest)?;
                rest = behind;
                match rest {
                    [b'-', behind @ ..] if behind.first().is_some_and(|&byte| byte != b']') => {
                        let (to, behind) = member(behind)?;
                        add(from..=to);
                        rest = behind;
                    }
                    _ => add(from..=from),
                }
            }
        }
        is_first = false;
    }
    if is_negated {
        class.iter_mut().for_each(|word| *word = !*word);
    }
    remove(&mut class, b'/');
    Some((class, rest))
}

/// One byte of a class, without its backslash.
fn member(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'\\', byte, behind @ ..] | [byte, behind @ ..] => Some((*byte, behind)),
        [] => None,
    }
}

/// Whether a byte is of a class that POSIX names; of an unknown name nothing is.
fn is_of(name: &[u8], byte: u8) -> bool {
    match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => byte == b' ' || byte == b'\t',
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::Wildcard;

    fn matches(pattern: &str, text: &str) -> bool {
        Wildcard::new(pattern.as_bytes()).matches(text.bytes())
    }

    #[test]
    fn stars_stop_at_slashes_unless_there_are_two() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*.o", "main.o", true),
            ("*.o", "a/main.o", false),
            ("a*/b", "abc/b", true),
            ("a*b", "a/b", false),
            ("a**b", "a/x/b", true),
            ("**", "", true),
            ("**/x", "a/b/x", true),
            ("**/x", "x", false),
            ("a***", "a/b/c", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("**a*b", "a/ab", true),
            ("?", "/", false),
            ("a?c", "abc", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn classes_are_those_of_posix() {
        for (pattern, text, expected) in [
            ("[a-c]x", "bx", true),
            ("[!a-c]", "b", false),
            ("[^a-c]", "d", true),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[a-]", "-", true),
            ("[\\]a]", "]", true),
            ("[[:digit:]x]", "7", true),
            ("[[:nonsense:]x]", "x", true),
            ("[[:digit:]", "7", false),
            ("[a", "[a", false),
            ("[.-0]", "/", false),
            ("[!x]", "/", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("x\\", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// A pattern that takes programs which try all ways for ever.
    #[test]
    fn no_pattern_takes_for_ever() {
        let pattern = "*a".repeat(1000) + "**" + &"a*".repeat(1000) + "b";
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }
}
