//! Writes SVG: elements with attributes and text, escaped and balanced by construction.

use std::fmt::{Display, Write as _};

/// A document, or a part of one, in the making.
#[derive(Debug, Default)]
pub(crate) struct Svg {
    text: String,
}

impl Svg {
    /// An element without content. Numbers have at most a decimal place too many for the eye.
    pub(crate) fn empty(&mut self, name: &str, attributes: &[(&str, &dyn Display)]) {
        self.open(name, attributes);
        self.text.push_str("/>\n");
    }

    /// An element with text.
    pub(crate) fn text(&mut self, name: &str, attributes: &[(&str, &dyn Display)], content: &str) {
        self.open(name, attributes);
        let _ = writeln!(self.text, ">{}</{name}>", escaped(content));
    }

    /// An element with elements.
    pub(crate) fn group(&mut self, name: &str, attributes: &[(&str, &dyn Display)], fill: impl FnOnce(&mut Self)) {
        self.open(name, attributes);
        self.text.push_str(">\n");
        fill(self);
        let _ = writeln!(self.text, "</{name}>");
    }

    /// All of it.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &dyn Display)]) {
        let _ = write!(self.text, "<{name}");
        for (key, value) in attributes {
            let _ = write!(self.text, " {key}=\"{}\"", escaped(&value.to_string()));
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to say these at all.
            control if control.is_control() && control != '\n' => out.push('\u{FFFD}'),
            plain => out.push(plain),
        }
    }
    out
}

/// Checks that elements are balanced and nothing is left unescaped; for tests.
#[cfg(test)]
pub(crate) fn assert_well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a stray >: {}", &rest[..start]);
        let end = start + rest[start..].find('>').expect("a tag that ends");
        let tag = &rest[start + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().expect("a name"));
        }
        rest = &rest[end + 1..];
    }
    assert_eq!(open, [""; 0]);
    for (index, _) in text.match_indices('&') {
        let entity = ["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|entity| text[index..].starts_with(entity));
        assert!(entity, "a stray &");
    }
}

#[cfg(test)]
mod tests {
    use super::{Svg, assert_well_formed};

    #[test]
    fn everything_is_escaped_and_balanced() {
        let mut svg = Svg::default();
        svg.group("svg", &[("width", &1.5)], |svg| {
            svg.empty("rect", &[("class", &"a\"b<c>&")]);
            svg.text("text", &[], "1 < 2 & \u{1}");
        });
        let text = svg.finish();
        assert_well_formed(&text);
        assert!(text.contains("class=\"a&quot;b&lt;c&gt;&amp;\"/>"));
        assert!(text.contains("<text>1 &lt; 2 &amp; \u{FFFD}</text>"));
    }
}
