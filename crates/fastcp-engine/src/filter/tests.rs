use std::collections::BTreeMap;
use std::io;

use fastcp_model::rules::parse::{Directive, FileStyle, Style};
use fastcp_model::rules::{Action, Candidate, FilterRule, Sides};

use super::{Filter, FilterError, Parent};

/// Files of rules by their paths, and the rules that a walk begins with.
struct Tree {
    files: BTreeMap<&'static str, &'static str>,
    rules: Vec<FilterRule>,
}

fn tree(rules: &str, files: &[(&'static str, &'static str)]) -> Tree {
    let style = FileStyle { style: Style::FILTER, cut: Default::default() };
    let rule = |directive| if let Directive::Rule(rule) = directive { Some(rule) } else { None };
    let rules = style.read(rules.as_bytes()).expect("lawful").into_iter().filter_map(rule).collect();
    Tree { files: files.iter().copied().collect(), rules }
}

impl Tree {
    /// The rules in a directory, entered from the top down.
    fn filter(&self, dir: &str) -> Result<Filter, FilterError> {
        let mut filter = Filter::new(&self.rules);
        let parts = dir.split('/').filter(|part| !part.is_empty());
        let mut path = String::new();
        filter = self.enter(&filter, &path)?;
        for part in parts {
            path = if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") };
            filter = self.enter(&filter, &path)?;
        }
        Ok(filter)
    }

    fn enter(&self, filter: &Filter, path: &str) -> Result<Filter, FilterError> {
        filter.enter(path.as_bytes(), &mut |file| {
            let file = String::from_utf8_lossy(file);
            let whole = if path.is_empty() { file.into_owned() } else { format!("{path}/{file}") };
            match self.files.get(&whole[..]) {
                Some(&"unreadable") => Err(io::ErrorKind::PermissionDenied.into()),
                found => Ok(found.map(|text| text.as_bytes().to_vec())),
            }
        })
    }

    /// Whether an entry takes part at the sender.
    fn takes(&self, path: &str) -> bool {
        self.action(path, Sides::SENDER, Parent::Stays) == Action::Include
    }

    fn action(&self, path: &str, side: Sides, parent: Parent) -> Action {
        let (dir, _) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", ""));
        let (is_dir, path) = (path.ends_with('/'), path.trim_end_matches('/').as_bytes());
        self.filter(dir).expect("lawful").action(&Candidate { path, above: b"", is_dir }, side, parent)
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let tree = tree("+ keep.o\n- *.o\n- /top\n- dir/", &[]);
    for (path, expected) in
        [("keep.o", true), ("a/x.o", false), ("top", false), ("a/top", true), ("dir/", false), ("dir", true)]
    {
        assert_eq!(tree.takes(path), expected, "{path}");
    }
}

#[test]
fn rules_of_a_directory_stand_before_those_it_inherits() {
    let tree = tree(
        ": .rules\n- *.log",
        &[(".rules", "- *.o\n- /anchored"), ("a/.rules", "+ x.o\n- /anchored"), ("a/b/.rules", "- x.o")],
    );
    for (path, expected) in [
        ("x.o", false),
        ("a/x.o", true),
        ("a/y.o", false),
        ("a/b/x.o", false),
        ("a/c/x.o", true),
        ("anchored", false),
        ("a/anchored", false),
        ("a/b/anchored", true),
        ("a/x.log", false),
    ] {
        assert_eq!(tree.takes(path), expected, "{path}");
    }
}

#[test]
fn what_is_not_inherited_or_is_cleared_ends_with_its_directory() {
    let not = tree(":n .rules", &[(".rules", "- x")]);
    assert!(!not.takes("x") && not.takes("a/x"));
    let cleared = tree(": .rules", &[(".rules", "- x"), ("a/.rules", "- before\n!\n- y")]);
    for (path, expected) in [("x", false), ("a/x", true), ("a/before", true), ("a/y", false), ("a/b/x", true)] {
        assert_eq!(cleared.takes(path), expected, "{path}");
    }
    let cvs = tree(":C", &[("a/.cvsignore", "*.tmp # -x")]);
    for (path, expected) in [("a/b.tmp", false), ("a/#", false), ("a/-x", false), ("a/b/c.tmp", true)] {
        assert_eq!(cvs.takes(path), expected, "{path}");
    }
}

#[test]
fn files_of_rules_may_name_others() {
    let tree = tree(
        ": .rules",
        &[(".rules", ". more\n: .deeper\n: .rules"), ("more", "- from_more"), ("a/.deeper", "- from_deeper")],
    );
    for (path, expected) in
        [("from_more", false), ("a/from_more", false), ("a/from_deeper", false), ("b/from_deeper", true)]
    {
        assert_eq!(tree.takes(path), expected, "{path}");
    }
    let circle = self::tree(": .rules", &[(".rules", ". .rules")]);
    assert!(matches!(circle.filter(""), Err(FilterError::TooDeep)));
}

#[test]
fn a_file_that_cannot_be_read_is_not_an_empty_one() {
    let tree = tree(": .rules", &[("a/.rules", "unreadable"), ("b/.rules", "what is this")]);
    assert!(matches!(tree.filter("a"), Err(FilterError::Read { .. })));
    assert!(matches!(tree.filter("b"), Err(FilterError::Rule { .. })));
    assert!(tree.filter("c").is_ok());
}

#[test]
fn sides_and_perishable_rules_are_told_apart() {
    let tree = tree("H hidden\nP kept\n-p gone\n-r x", &[]);
    for (path, sender, receiver, goes) in [
        ("hidden", Action::Exclude, Action::Include, Action::Include),
        ("kept", Action::Include, Action::Exclude, Action::Exclude),
        ("gone", Action::Exclude, Action::Exclude, Action::Include),
        ("x", Action::Include, Action::Exclude, Action::Exclude),
    ] {
        assert_eq!(tree.action(path, Sides::SENDER, Parent::Stays), sender, "{path}");
        assert_eq!(tree.action(path, Sides::RECEIVER, Parent::Stays), receiver, "{path}");
        assert_eq!(tree.action(path, Sides::RECEIVER, Parent::Goes), goes, "{path}");
    }
}

#[test]
fn directories_above_are_searched_where_the_name_has_a_slash() {
    let rules = tree(": /.rules\n: .other", &[]).rules;
    let filter = Filter::new(&rules);
    let mut read = |file: &[u8]| Ok((file == b".rules").then(|| b"- /b/x\n- y".to_vec()));
    let filter = filter.enter_above(b"a", &mut read).expect("lawful");
    let filter = filter.enter(b"", &mut |_| Ok(None)).expect("lawful");
    let takes = |path: &[u8]| {
        let candidate = Candidate { path, above: b"a/b", is_dir: false };
        filter.action(&candidate, Sides::SENDER, Parent::Stays) == Action::Include
    };
    assert!(!takes(b"x") && takes(b"c/x") && !takes(b"c/y"));
}
