//! Filter rules as they are typed, and as files have them.
//!
//! A [`Style`] says how a text is read: as a rule with its prefix (`--filter`, merge files), or as a bare pattern
//! (`--exclude`, `--include` and their files), which may have the old prefixes `- ` and `+ `.

use super::{Action, DirMerge, FilterRule, Pattern, PatternError, Rule, Sides};

/// How the bytes of a file are cut into rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Cut {
    /// At line ends; lines that begin with `#` or `;` are comments.
    #[default]
    Lines,
    /// At NUL bytes: `--from0`.
    Nul,
    /// At white space, without comments: the modifier `w`.
    Words,
}

/// What a text is, before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A rule with its prefix.
    Prefixed,
    /// A pattern, of this action unless an old prefix says otherwise.
    Pattern(Action),
    /// A pattern whatever it begins with: the modifiers `-` and `+` of a merge file.
    Bare(Action),
    /// A pattern in a file for `cvs`: excluded, and `!` alone clears the list.
    Cvs,
}

/// How one rule is read, and what it has from where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Style {
    /// What a text is.
    pub form: Form,
    /// Where rules are evaluated that do not say.
    pub sides: Sides,
    /// Whether no rule may say where: the modifiers `s` and `r` of a merge file.
    pub is_sided: bool,
    /// Whether patterns are held against absolute paths: the modifier `/` of a merge file.
    pub is_absolute: bool,
    /// Whether rules are perishable: the modifier `p` of a merge file.
    pub is_perishable: bool,
    /// Whether rules are about extended attributes: the modifier `x` of a merge file.
    pub is_about_attributes: bool,
}

/// How a file of rules is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileStyle {
    /// Each rule.
    pub style: Style,
    /// How they are told apart.
    pub cut: Cut,
}

/// What a text turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// A rule, or a file with rules in each directory.
    Rule(FilterRule),
    /// The rules of this file stand here. It is read once.
    Merge(Merge),
    /// What was said before is forgotten.
    Clear,
}

/// A file whose rules stand in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// As it was typed.
    pub file: Box<[u8]>,
    /// How it is read.
    pub style: FileStyle,
    /// The file itself is excluded from the transfer.
    pub excludes_itself: bool,
}

/// Why a text is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It begins with no prefix.
    #[error("a filter rule begins with + or -, or with one of the words of rsync(1), \"FILTER RULES\"")]
    Prefix,
    /// A modifier that there is not, or not for this rule.
    #[error("the modifier {:?} is not for this filter rule", char::from(*.0))]
    Modifier(u8),
    /// Its file is for one end, and it names an end itself.
    #[error("a filter rule names an end, and so does what its file is merged by")]
    Sided,
    /// Nothing behind the prefix.
    #[error("a filter rule has no pattern or file name")]
    Nothing,
    /// Something behind a rule that is alone.
    #[error("a filter rule has something behind it that does not belong there")]
    Excess,
    /// The pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl Style {
    /// How `--filter` is read.
    pub const FILTER: Self = Self {
        form: Form::Prefixed,
        sides: Sides::all(),
        is_sided: false,
        is_absolute: false,
        is_perishable: false,
        is_about_attributes: false,
    };

    /// How `--exclude` and `--include` are read.
    pub const fn pattern(action: Action) -> Self {
        Self { form: Form::Pattern(action), ..Self::FILTER }
    }
}

/// The name of the file that `cvs` has such patterns in.
const CVS_FILE: &[u8] = b".cvsignore";

/// The kinds of rules that a prefix names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Of(Action, Sides),
    Merge,
    DirMerge,
    Clear,
}

/// Long and short names of prefixes.
const PREFIXES: [(&str, u8, Kind); 9] = [
    ("exclude", b'-', Kind::Of(Action::Exclude, Sides::all())),
    ("include", b'+', Kind::Of(Action::Include, Sides::all())),
    ("merge", b'.', Kind::Merge),
    ("dir-merge", b':', Kind::DirMerge),
    ("hide", b'H', Kind::Of(Action::Exclude, Sides::SENDER)),
    ("show", b'S', Kind::Of(Action::Include, Sides::SENDER)),
    ("protect", b'P', Kind::Of(Action::Exclude, Sides::RECEIVER)),
    ("risk", b'R', Kind::Of(Action::Include, Sides::RECEIVER)),
    ("clear", b'!', Kind::Clear),
];

/// Reads one rule.
///
/// # Errors
/// A text that is none.
pub fn directive(text: &[u8], style: &Style) -> Result<Directive, RuleError> {
    let (action, pattern) = match (style.form, text) {
        (Form::Prefixed, _) => return prefixed(text, style),
        (Form::Pattern(_), b"!") | (Form::Cvs, b"!") => return Ok(Directive::Clear),
        (Form::Pattern(_), [b'-', b' ', pattern @ ..]) => (Action::Exclude, pattern),
        (Form::Pattern(_), [b'+', b' ', pattern @ ..]) => (Action::Include, pattern),
        (Form::Pattern(action) | Form::Bare(action), pattern) => (action, pattern),
        (Form::Cvs, pattern) => (Action::Exclude, pattern),
    };
    rule(action, pattern, style, false)
}

fn rule(action: Action, pattern: &[u8], style: &Style, is_negated: bool) -> Result<Directive, RuleError> {
    let pattern = Pattern::new(pattern)?.absolute(style.is_absolute).negated(is_negated);
    let Style { sides, is_perishable, is_about_attributes, .. } = *style;
    Ok(Directive::Rule(FilterRule::Rule(Rule { action, pattern, sides, is_perishable, is_about_attributes })))
}

fn prefixed(text: &[u8], style: &Style) -> Result<Directive, RuleError> {
    let (kind, behind) = kind_of(text)?;
    let (modifiers, rest) = modifiers_of(behind);
    match kind {
        Kind::Clear if modifiers.is_empty() && rest.is_empty() => Ok(Directive::Clear),
        Kind::Clear => Err(RuleError::Excess),
        Kind::Of(action, sides) => pattern_rule(action, sides, modifiers, rest, style),
        Kind::Merge | Kind::DirMerge => merge(kind, modifiers, rest, style),
    }
}

/// The kind of a rule, and what is behind its name.
fn kind_of(text: &[u8]) -> Result<(Kind, &[u8]), RuleError> {
    let ends = |behind: &[u8]| matches!(behind.first(), None | Some(b' ' | b'_' | b','));
    let long = PREFIXES.iter().find_map(|(name, _, kind)| {
        let behind = text.strip_prefix(name.as_bytes()).filter(|behind| ends(behind))?;
        Some((*kind, behind.strip_prefix(b",").unwrap_or(behind)))
    });
    let short = || {
        let (first, behind) = text.split_first()?;
        let (_, _, kind) = PREFIXES.iter().find(|(_, short, _)| short == first)?;
        Some((*kind, behind.strip_prefix(b",").unwrap_or(behind)))
    };
    long.or_else(short).ok_or(RuleError::Prefix)
}

/// Modifiers up to the space or underscore that ends them, and what is behind it.
fn modifiers_of(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|&byte| byte == b' ' || byte == b'_') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

fn pattern_rule(
    action: Action,
    of_kind: Sides,
    modifiers: &[u8],
    pattern: &[u8],
    style: &Style,
) -> Result<Directive, RuleError> {
    let mut own = *style;
    let (mut is_negated, mut sides) = (false, Sides::empty());
    for &modifier in modifiers {
        match modifier {
            b'/' => own.is_absolute = true,
            b'!' => is_negated = true,
            b'p' => own.is_perishable = true,
            b'x' => own.is_about_attributes = true,
            b's' if of_kind == Sides::all() => sides |= Sides::SENDER,
            b'r' if of_kind == Sides::all() => sides |= Sides::RECEIVER,
            other => return Err(RuleError::Modifier(other)),
        }
    }
    if style.is_sided && (of_kind != Sides::all() || !sides.is_empty()) {
        return Err(RuleError::Sided);
    }
    own.sides = match (of_kind == Sides::all(), sides.is_empty()) {
        (true, true) => style.sides,
        (true, false) => sides,
        (false, _) => of_kind,
    };
    if pattern.is_empty() {
        return Err(RuleError::Nothing);
    }
    rule(action, pattern, &own, is_negated)
}

fn merge(kind: Kind, modifiers: &[u8], file: &[u8], style: &Style) -> Result<Directive, RuleError> {
    let mut read = FileStyle { style: *style, cut: Cut::Lines };
    let (mut excludes_itself, mut is_not_inherited, mut sides) = (false, false, Sides::empty());
    for &modifier in modifiers {
        match modifier {
            b'-' => read.style.form = Form::Bare(Action::Exclude),
            b'+' => read.style.form = Form::Bare(Action::Include),
            b'C' => {
                read = FileStyle { style: Style { form: Form::Cvs, ..read.style }, cut: Cut::Words };
                is_not_inherited = true;
            }
            b'e' => excludes_itself = true,
            b'n' => is_not_inherited = true,
            b'w' => read.cut = Cut::Words,
            b'/' => read.style.is_absolute = true,
            b'p' => read.style.is_perishable = true,
            b'x' => read.style.is_about_attributes = true,
            b's' => sides |= Sides::SENDER,
            b'r' => sides |= Sides::RECEIVER,
            other => return Err(RuleError::Modifier(other)),
        }
    }
    if !sides.is_empty() {
        if style.is_sided {
            return Err(RuleError::Sided);
        }
        (read.style.sides, read.style.is_sided) = (sides, true);
    }
    let file = if file.is_empty() && read.style.form == Form::Cvs { CVS_FILE } else { file };
    if file.is_empty() {
        return Err(RuleError::Nothing);
    }
    if kind == Kind::Merge {
        return Ok(Directive::Merge(Merge { file: file.into(), style: read, excludes_itself }));
    }
    let (name, searches_above) = file.strip_prefix(b"/").map_or((file, false), |name| (name, true));
    if name.is_empty() {
        return Err(RuleError::Nothing);
    }
    let merge = DirMerge { file: name.into(), style: read, searches_above, is_not_inherited, excludes_itself };
    Ok(Directive::Rule(FilterRule::DirMerge(merge)))
}

impl FileStyle {
    /// What a file says, in order.
    ///
    /// # Errors
    /// The first text that is no rule.
    pub fn read(&self, bytes: &[u8]) -> Result<Vec<Directive>, RuleError> {
        let is_end: fn(&u8) -> bool = match self.cut {
            Cut::Lines => |byte| *byte == b'\n' || *byte == b'\r',
            Cut::Nul => |byte| *byte == 0,
            Cut::Words => u8::is_ascii_whitespace,
        };
        let is_comment = |text: &[u8]| self.cut == Cut::Lines && matches!(text.first(), Some(b'#' | b';'));
        let texts = bytes.split(is_end).filter(|text| !text.is_empty() && !is_comment(text));
        texts.map(|text| directive(text, &self.style)).collect()
    }
}

/// What `-C` excludes beside what files and the environment say: the list of rsync(1), `--cvs-exclude`.
pub const CVS_PATTERNS: &str = "RCS SCCS CVS CVS.adm RCSLOG cvslog.* tags TAGS .make.state .nse_depinfo *~ #* .#* ,* _$* *$ \
                                *.old *.bak *.BAK *.orig *.rej .del-* *.a *.olb *.o *.obj *.so *.exe *.Z *.elc *.ln core \
                                .svn/ .git/ .hg/ .bzr/";

#[cfg(test)]
mod tests {
    use super::{
        Action, CVS_PATTERNS, Cut, Directive, FileStyle, FilterRule, Form, RuleError, Sides, Style, directive,
    };

    /// A rule in a few words: its action, sides and pattern.
    fn said(text: &str, style: &Style) -> String {
        match directive(text.as_bytes(), style) {
            Ok(Directive::Rule(FilterRule::Rule(rule))) => {
                let action = if rule.action == Action::Exclude { '-' } else { '+' };
                let sides = match rule.sides {
                    Sides::SENDER => "s",
                    Sides::RECEIVER => "r",
                    _ => "",
                };
                let marks = [
                    (rule.pattern.is_absolute(), "/"),
                    (rule.pattern.is_negated(), "!"),
                    (rule.is_perishable, "p"),
                    (rule.is_about_attributes, "x"),
                ];
                let marks: String = marks.iter().filter(|(is_set, _)| *is_set).map(|(_, mark)| *mark).collect();
                format!("{action}{marks}{sides} {}", String::from_utf8_lossy(rule.pattern.text()))
            }
            Ok(Directive::Rule(FilterRule::DirMerge(merge))) => {
                format!(
                    ": {} {:?} {}",
                    String::from_utf8_lossy(&merge.file),
                    merge.style.style.form,
                    merge.searches_above
                )
            }
            Ok(Directive::Merge(merge)) => format!(". {}", String::from_utf8_lossy(&merge.file)),
            Ok(Directive::Clear) => "!".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn rules_have_prefixes_and_modifiers() {
        for (text, expected) in [
            ("- *.o", "- *.o"),
            ("+ /a b/", "+ /a b/"),
            ("exclude *.o", "- *.o"),
            ("include,/! x", "+/! x"),
            ("-,p x", "-p x"),
            ("-p_x", "-p x"),
            ("-s x", "-s x"),
            ("-sr x", "- x"),
            ("hide x", "-s x"),
            ("P x", "-r x"),
            ("R x", "+r x"),
            ("show,x user.*", "+xs user.*"),
            ("!", "!"),
            ("clear", "!"),
            ("dir-merge .rules", ": .rules Prefixed false"),
            (":- .ignore", ": .ignore Bare(Exclude) false"),
            (": /.rsync-filter", ": .rsync-filter Prefixed true"),
            (":C", ": .cvsignore Cvs false"),
            (". file", ". file"),
            ("-  x", "-  x"),
        ] {
            assert_eq!(said(text, &Style::FILTER), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_said() {
        for (text, expected) in [
            ("x", RuleError::Prefix),
            ("", RuleError::Prefix),
            ("excluded x", RuleError::Prefix),
            ("-", RuleError::Nothing),
            ("- ", RuleError::Nothing),
            ("-z x", RuleError::Modifier(b'z')),
            ("Hs x", RuleError::Modifier(b's')),
            ("! x", RuleError::Excess),
            (":", RuleError::Nothing),
            (": /", RuleError::Nothing),
            (".z file", RuleError::Modifier(b'z')),
        ] {
            assert_eq!(directive(text.as_bytes(), &Style::FILTER), Err(expected), "{text}");
        }
    }

    #[test]
    fn patterns_may_have_old_prefixes() {
        let exclude = Style::pattern(Action::Exclude);
        for (text, expected) in [("x", "- x"), ("+ x", "+ x"), ("- x", "- x"), ("!", "!"), ("-x", "- -x")] {
            assert_eq!(said(text, &exclude), expected, "{text}");
        }
        assert_eq!(said("+ x", &Style { form: Form::Bare(Action::Exclude), ..Style::FILTER }), "- + x");
    }

    #[test]
    fn files_are_cut_into_rules() {
        let texts = |bytes: &[u8], style: FileStyle| {
            let text = |directive| match directive {
                Directive::Rule(FilterRule::Rule(rule)) => {
                    Some(String::from_utf8_lossy(rule.pattern.text()).into_owned())
                }
                _ => None,
            };
            style.read(bytes).map(|directives| directives.into_iter().filter_map(text).collect::<Vec<_>>())
        };
        let of = |form, cut| FileStyle { style: Style { form, ..Style::FILTER }, cut };
        let pattern = Form::Pattern(Action::Exclude);
        assert_eq!(texts(b"# no\n\na b\r\n;no\n- c", of(pattern, Cut::Lines)), Ok(vec!["a b".into(), "c".into()]));
        assert_eq!(texts(b"#a\0b\n\0", of(pattern, Cut::Nul)), Ok(vec!["#a".into(), "b\n".into()]));
        assert_eq!(texts(b"-_a\n +_b", of(Form::Prefixed, Cut::Words)), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(texts(b"- a\nb", of(Form::Prefixed, Cut::Lines)), Err(RuleError::Prefix));
        let cvs = texts(CVS_PATTERNS.as_bytes(), of(Form::Cvs, Cut::Words)).expect("lawful");
        assert_eq!((cvs.len(), cvs[8].as_str()), (36, ".make.state"));
    }
}
