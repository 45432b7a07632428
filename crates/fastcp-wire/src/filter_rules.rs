//! Filter rules on the wire: what of a tree takes part in a run, as the receiver asks the sender for it.

use fastcp_model::rules::parse::{Cut, FileStyle, Form, Style};
use fastcp_model::rules::{Action, DirMerge, FilterRule, PATTERN_BYTES_MAX, Pattern, Rule, Sides};

use crate::WireError;
use crate::limits::RULES_BYTES_MAX;
use crate::reader::{Reader, put_short_bytes, within};

/// The kinds of rules on the wire.
const RULE: u8 = 0;
const DIR_MERGE: u8 = 1;

bitflags::bitflags! {
    /// What a rule is, beside its text: `docs/protocol.md`, "Rule marks".
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Marks: u16 {
        /// What matches is included, not excluded.
        const INCLUDE = 0x0001;
        /// It is evaluated at the sender.
        const SENDER = 0x0002;
        /// It is evaluated at the receiver.
        const RECEIVER = 0x0004;
        /// Patterns are held against absolute paths.
        const ABSOLUTE = 0x0008;
        /// It keeps nothing in a directory that is deleted.
        const PERISHABLE = 0x0010;
        /// It is about extended attributes.
        const ATTRIBUTES = 0x0020;
        /// Of a rule: it is about what does not match.
        const NEGATED = 0x0040;
        /// Of a dir-merge, as all below: patterns have no prefixes.
        const BARE = 0x0080;
        /// Patterns are excluded, and `!` clears the list.
        const CVS = 0x0100;
        /// Rules are cut at white space.
        const WORDS = 0x0200;
        /// Rules are cut at NUL.
        const NUL = 0x0400;
        /// Directories above the transfer are searched, too.
        const ABOVE = 0x0800;
        /// Directories below do not inherit.
        const NOT_INHERITED = 0x1000;
        /// The file itself is excluded.
        const ITSELF = 0x2000;
        /// No rule of it says where it is evaluated.
        const SIDED = 0x4000;
    }
}

impl Marks {
    const OF_RULE: Self = Self::INCLUDE
        .union(Self::SENDER)
        .union(Self::RECEIVER)
        .union(Self::ABSOLUTE)
        .union(Self::PERISHABLE)
        .union(Self::ATTRIBUTES)
        .union(Self::NEGATED);
    const OF_DIR_MERGE: Self = Self::all().difference(Self::NEGATED);

    fn of(sides: Sides, is_absolute: bool, is_perishable: bool, is_about_attributes: bool) -> Self {
        let mut marks = Self::empty();
        marks.set(Self::SENDER, sides.contains(Sides::SENDER));
        marks.set(Self::RECEIVER, sides.contains(Sides::RECEIVER));
        marks.set(Self::ABSOLUTE, is_absolute);
        marks.set(Self::PERISHABLE, is_perishable);
        marks.set(Self::ATTRIBUTES, is_about_attributes);
        marks
    }

    fn sides(self) -> Sides {
        let mut sides = Sides::empty();
        sides.set(Sides::SENDER, self.contains(Self::SENDER));
        sides.set(Sides::RECEIVER, self.contains(Self::RECEIVER));
        sides
    }

    fn action(self) -> Action {
        if self.contains(Self::INCLUDE) { Action::Include } else { Action::Exclude }
    }
}

/// How many bytes rules take, without their length.
pub fn bytes_of(rules: &[FilterRule]) -> usize {
    let mut bytes = Vec::new();
    for rule in rules {
        put_rule(&mut bytes, rule);
    }
    bytes.len()
}

/// Appends rules, with their length before them.
pub(crate) fn put_rules(out: &mut Vec<u8>, rules: &[FilterRule]) -> Result<(), WireError> {
    let mut bytes = Vec::new();
    for rule in rules {
        put_rule(&mut bytes, rule);
    }
    within("rules_len", bytes.len(), RULES_BYTES_MAX)?;
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(&bytes);
    Ok(())
}

pub(crate) fn rules(reader: &mut Reader<'_>) -> Result<Vec<FilterRule>, WireError> {
    let length = reader.u32()? as usize;
    within("rules_len", length, RULES_BYTES_MAX)?;
    let mut reader = Reader::new(reader.bytes(length)?);
    let mut rules = Vec::new();
    while !reader.is_empty() {
        rules.push(rule(&mut reader)?);
    }
    Ok(rules)
}

fn put_rule(out: &mut Vec<u8>, rule: &FilterRule) {
    let (kind, marks, text) = match rule {
        FilterRule::Rule(rule) => {
            let pattern = &rule.pattern;
            let mut marks = Marks::of(rule.sides, pattern.is_absolute(), rule.is_perishable, rule.is_about_attributes);
            marks.set(Marks::INCLUDE, rule.action == Action::Include);
            marks.set(Marks::NEGATED, pattern.is_negated());
            (RULE, marks, pattern.text())
        }
        FilterRule::DirMerge(merge) => {
            let Style { form, sides, is_sided, is_absolute, is_perishable, is_about_attributes } = merge.style.style;
            let mut marks = Marks::of(sides, is_absolute, is_perishable, is_about_attributes);
            marks.set(Marks::INCLUDE, form == Form::Bare(Action::Include));
            marks.set(Marks::BARE, matches!(form, Form::Bare(_)));
            marks.set(Marks::CVS, form == Form::Cvs);
            marks.set(Marks::WORDS, merge.style.cut == Cut::Words);
            marks.set(Marks::NUL, merge.style.cut == Cut::Nul);
            marks.set(Marks::ABOVE, merge.searches_above);
            marks.set(Marks::NOT_INHERITED, merge.is_not_inherited);
            marks.set(Marks::ITSELF, merge.excludes_itself);
            marks.set(Marks::SIDED, is_sided);
            (DIR_MERGE, marks, &merge.file[..])
        }
    };
    out.push(kind);
    out.extend_from_slice(&marks.bits().to_be_bytes());
    put_short_bytes(out, text);
}

fn rule(reader: &mut Reader<'_>) -> Result<FilterRule, WireError> {
    let kind = reader.u8()?;
    let bits = reader.u16()?;
    let unknown = WireError::Value { field: "marks", value: bits.into() };
    let marks = Marks::from_bits(bits).ok_or(unknown)?;
    let text = reader.short_bytes("text_len", PATTERN_BYTES_MAX)?;
    let nothing = WireError::Value { field: "text_len", value: 0 };
    match kind {
        RULE if Marks::OF_RULE.contains(marks) => {
            let pattern = Pattern::new(text).map_err(|_| nothing)?;
            let pattern = pattern.absolute(marks.contains(Marks::ABSOLUTE)).negated(marks.contains(Marks::NEGATED));
            Ok(FilterRule::Rule(Rule {
                action: marks.action(),
                pattern,
                sides: marks.sides(),
                is_perishable: marks.contains(Marks::PERISHABLE),
                is_about_attributes: marks.contains(Marks::ATTRIBUTES),
            }))
        }
        DIR_MERGE if Marks::OF_DIR_MERGE.contains(marks) && !text.is_empty() => {
            dir_merge(marks, text).map(FilterRule::DirMerge).ok_or(unknown)
        }
        DIR_MERGE if text.is_empty() => Err(nothing),
        RULE | DIR_MERGE => Err(unknown),
        other => Err(WireError::Value { field: "kind", value: other.into() }),
    }
}

fn dir_merge(marks: Marks, file: &[u8]) -> Option<DirMerge> {
    let form = match (marks.contains(Marks::BARE), marks.contains(Marks::CVS)) {
        (true, false) => Form::Bare(marks.action()),
        (false, _) if marks.contains(Marks::INCLUDE) => return None,
        (false, false) => Form::Prefixed,
        (false, true) => Form::Cvs,
        (true, true) => return None,
    };
    let cut = match (marks.contains(Marks::WORDS), marks.contains(Marks::NUL)) {
        (false, false) => Cut::Lines,
        (true, false) => Cut::Words,
        (false, true) => Cut::Nul,
        (true, true) => return None,
    };
    let style = Style {
        form,
        sides: marks.sides(),
        is_sided: marks.contains(Marks::SIDED),
        is_absolute: marks.contains(Marks::ABSOLUTE),
        is_perishable: marks.contains(Marks::PERISHABLE),
        is_about_attributes: marks.contains(Marks::ATTRIBUTES),
    };
    Some(DirMerge {
        file: file.into(),
        style: FileStyle { style, cut },
        searches_above: marks.contains(Marks::ABOVE),
        is_not_inherited: marks.contains(Marks::NOT_INHERITED),
        excludes_itself: marks.contains(Marks::ITSELF),
    })
}
