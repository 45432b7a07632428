//! The figures as text, beside those that are written.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::counts::compare::{RARE, is_momentary};
use crate::counts::record::{Record, rounded};
use crate::counts::work::WORKS;

/// All that are not rare. Writing to a string cannot fail.
pub(super) fn text(counted: &Record, known: Option<&Record>) -> String {
    let mut out = String::new();
    for work in WORKS.into_iter().filter(|work| counted.works.contains_key(&work.to_string())) {
        let nothing = Record::default();
        let known = known.unwrap_or(&nothing).of(work);
        for ((end, now), (_, before)) in counted.of(work).ends().into_iter().zip(known.ends()) {
            let _ = writeln!(out, "{work}, {end}, per {}", work.unit());
            let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
            for name in names {
                let (now, before) = (now.get(name).copied().unwrap_or(0.0), before.get(name).copied());
                if before.is_none() && now * (work.units() as f64) < RARE {
                    continue;
                }
                let before = before.map_or_else(|| "-".to_owned(), |before| before.to_string());
                let mark = if is_momentary(work, name) { "  depends on the moment" } else { "" };
                let _ = writeln!(out, "  {name:20} {:>10}  {before:>10}{mark}", rounded(now));
            }
        }
    }
    format!("{:22} {:>10}  {:>10}\n{out}", "", "now", "written")
}
