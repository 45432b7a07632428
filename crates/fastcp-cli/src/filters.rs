//! The filter rules of a run, from what was typed, the files that it names, and the environment.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fastcp_model::rules::parse::{CVS_PATTERNS, Cut, Directive, FileStyle, Form, Merge, Style, directive};
use fastcp_model::rules::{Action, DirMerge, FilterRule, Rule, Sides, base_name};
use fastcp_wire::limits::RULES_BYTES_MAX;

use crate::args::filters::{FilterOptions, FilterWord, Unqualified};
use crate::exit_code::{self, Failure};
use crate::wording::shown;

/// The file that `-F` reads in each directory. Directories above the transfer are searched for it, too.
const PER_DIRECTORY: &[u8] = b": /.rsync-filter";
const PER_DIRECTORY_ITSELF: &[u8] = b"- .rsync-filter";
/// What `-C` puts behind all other rules.
const CVS_PER_DIRECTORY: &[u8] = b":C";
/// A rule that stands for what cvs ignores everywhere.
const CVS_DEFAULTS: [&[u8]; 3] = [b"-C", b"exclude,C", b"-,C"];
/// Files that name files that name files.
const DEPTH_MAX: usize = 16;

/// The rules that options ask for.
///
/// # Errors
/// A rule that makes no sense, or a file that cannot be read.
pub(crate) fn rules(options: &FilterOptions, unqualified: Unqualified) -> Result<Vec<FilterRule>, Failure> {
    let sides = match unqualified {
        Unqualified::BothEnds => Sides::all(),
        Unqualified::SenderAlone => Sides::SENDER,
    };
    let cut = if options.is_cut_at_nul { Cut::Nul } else { Cut::Lines };
    let mut list = List { rules: Vec::new(), sides, cut };
    let mut per_directory = [PER_DIRECTORY, PER_DIRECTORY_ITSELF].into_iter();
    for word in &options.words {
        match word {
            FilterWord::Exclude(text) => list.typed("--exclude", text, &list.style(Form::Pattern(Action::Exclude)))?,
            FilterWord::Include(text) => list.typed("--include", text, &list.style(Form::Pattern(Action::Include)))?,
            FilterWord::Filter(text) => list.typed("--filter", text, &list.style(Form::Prefixed))?,
            FilterWord::ExcludeFrom(path) => list.file(path, Form::Pattern(Action::Exclude))?,
            FilterWord::IncludeFrom(path) => list.file(path, Form::Pattern(Action::Include))?,
            FilterWord::PerDirectory => {
                if let Some(text) = per_directory.next() {
                    list.typed("-F", OsStr::from_bytes(text), &list.style(Form::Prefixed))?;
                }
            }
        }
    }
    if options.has_cvs {
        list.typed("-C", OsStr::from_bytes(CVS_PER_DIRECTORY), &list.style(Form::Prefixed))?;
        list.cvs_defaults()?;
    }
    match fastcp_wire::filter_rules::bytes_of(&list.rules) > RULES_BYTES_MAX {
        true => Err(usage(format!("the filter rules have more than {RULES_BYTES_MAX} bytes"))),
        false => Ok(list.rules),
    }
}

struct List {
    rules: Vec<FilterRule>,
    sides: Sides,
    /// How files are cut that were named by an option.
    cut: Cut,
}

impl List {
    fn style(&self, form: Form) -> Style {
        Style { form, sides: self.sides, ..Style::FILTER }
    }

    fn typed(&mut self, option: &str, text: &OsStr, style: &Style) -> Result<(), Failure> {
        let text = text.as_bytes();
        if style.form == Form::Prefixed && CVS_DEFAULTS.contains(&text) {
            return self.cvs_defaults();
        }
        let directive = directive(text, style)
            .map_err(|error| usage(format!("{option} \"{}\": {error}", fastcp_model::Escaped(text))))?;
        self.take(directive, 0)
    }

    /// Reads a file that an option has named.
    fn file(&mut self, path: &Path, form: Form) -> Result<(), Failure> {
        let style = FileStyle { style: self.style(form), cut: self.cut };
        self.merge(path, &style, 0)
    }

    fn take(&mut self, directive: Directive, depth: usize) -> Result<(), Failure> {
        match directive {
            Directive::Clear => self.rules.clear(),
            Directive::Merge(Merge { file, style, excludes_itself }) => {
                self.rules.extend(itself(&file, excludes_itself, style.style.sides));
                self.merge(Path::new(OsStr::from_bytes(&file)), &style, depth)?;
            }
            Directive::Rule(FilterRule::DirMerge(merge)) => {
                let DirMerge { file, style, excludes_itself, .. } = &merge;
                self.rules.extend(itself(file, *excludes_itself, style.style.sides));
                // Of several of one name the first counts.
                let is_named = |rule: &FilterRule| match rule {
                    FilterRule::DirMerge(other) => base_name(&other.file) == base_name(file),
                    FilterRule::Rule(_) => false,
                };
                if !self.rules.iter().any(is_named) {
                    self.rules.push(FilterRule::DirMerge(merge));
                }
            }
            Directive::Rule(rule) => self.rules.push(rule),
        }
        Ok(())
    }

    fn merge(&mut self, path: &Path, style: &FileStyle, depth: usize) -> Result<(), Failure> {
        if depth >= DEPTH_MAX {
            return Err(usage(format!("files of filter rules name each other more than {DEPTH_MAX} deep")));
        }
        let bytes = read(path).map_err(|error| {
            Failure::new(exit_code::FILE_IO, format!("cannot read the filter rules in \"{}\": {error}", shown(path)))
        })?;
        let directives = style.read(&bytes);
        let directives =
            directives.map_err(|error| usage(format!("the filter rules in \"{}\": {error}", shown(path))))?;
        directives.into_iter().try_for_each(|directive| self.take(directive, depth + 1))
    }

    /// What cvs ignores everywhere: its own list, the user's, and the environment's.
    fn cvs_defaults(&mut self) -> Result<(), Failure> {
        let style = Style { is_perishable: true, ..self.style(Form::Cvs) };
        let style = FileStyle { style, cut: Cut::Words };
        let own = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cvsignore"));
        let own = own.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        let environment = std::env::var_os("CVSIGNORE").unwrap_or_default();
        for bytes in [CVS_PATTERNS.as_bytes(), &own, environment.as_bytes()] {
            let directives = style.read(bytes).map_err(|error| usage(format!("what cvs ignores: {error}")))?;
            directives.into_iter().try_for_each(|directive| self.take(directive, 0))?;
        }
        Ok(())
    }
}

/// The rule that keeps a file of rules out of the copy, if it is to stay out.
fn itself(file: &[u8], is_excluded: bool, sides: Sides) -> Option<FilterRule> {
    Rule::excluding(file, sides).filter(|_| is_excluded).map(FilterRule::Rule)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bytes_max = RULES_BYTES_MAX as u64 * 4;
    let count = match path.as_os_str() == "-" {
        true => io::stdin().lock().take(bytes_max + 1).read_to_end(&mut bytes)?,
        false => File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?,
    };
    match count as u64 > bytes_max {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

fn usage(message: String) -> Failure {
    Failure::new(exit_code::USAGE, message)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fastcp_model::rules::FilterRule;

    use super::rules;
    use crate::args::filters::{FilterOptions, FilterWord, Unqualified};

    fn said(words: Vec<FilterWord>, has_cvs: bool) -> Vec<String> {
        let options = FilterOptions { words, is_cut_at_nul: false, has_cvs };
        let rule = |rule: &FilterRule| match rule {
            FilterRule::Rule(rule) => {
                let sign = if rule.action == fastcp_model::rules::Action::Exclude { '-' } else { '+' };
                format!("{sign} {}", String::from_utf8_lossy(rule.pattern.text()))
            }
            FilterRule::DirMerge(merge) => format!(": {}", String::from_utf8_lossy(&merge.file)),
        };
        rules(&options, Unqualified::BothEnds).ok().expect("lawful").iter().map(rule).collect()
    }

    #[test]
    fn rules_stand_in_the_order_in_which_they_were_typed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("file");
        fs::write(&file, "# comment\n- a\n+ b\n\nc d\n").expect("write");
        let words = vec![
            FilterWord::PerDirectory,
            FilterWord::Include("*.c".into()),
            FilterWord::ExcludeFrom(file.clone()),
            FilterWord::PerDirectory,
            FilterWord::Filter(format!("merge,e- {}", file.display()).into()),
        ];
        let last = said(words.clone(), false);
        assert_eq!(&last[..6], [": .rsync-filter", "+ *.c", "- a", "+ b", "- c d", "- .rsync-filter"]);
        assert_eq!(&last[6..], ["- file", "- - a", "- + b", "- c d"]);
    }

    #[test]
    fn what_cvs_ignores_stands_behind_all() {
        let all = said(vec![FilterWord::Exclude("x".into())], true);
        assert_eq!(&all[..3], ["- x", ": .cvsignore", "- RCS"]);
        assert!(all.contains(&"- .git/".to_owned()) && all.len() > 30, "{all:?}");
        let cleared = said(vec![FilterWord::Exclude("x".into()), FilterWord::Filter("!".into())], false);
        assert!(cleared.is_empty());
    }
}
