//! Events and numbers on their way from a receiver to the sender that dialled it, who shows them as if they were his.

use fastcp_wire::limits::REPORT_COUNTER_MAX;
use fastcp_wire::report::{ReportState, Told, ToldKind, Undeleted};

use super::{Cause, Count, Event, Item, ItemKind, Limit, Refusal, Report};
use crate::budget::{Limited, Resource};
use crate::settings::MaxDelete;

/// What an event travels as; `None` for one that concerns nobody else.
pub(crate) fn told(event: Event) -> Option<Told> {
    Some(match event {
        Event::Failed { path, cause } => {
            let (is_moving_source, kind, text) = (cause.is_moving_source(), cause.kind().to_owned(), cause.to_string());
            Told::Failed { path, is_moving_source, kind, text }
        }
        Event::Skipped { path, kind } => Told::Skipped { path, kind },
        Event::Committed { path, bytes } => Told::Committed { path, bytes },
        Event::Item(Item { change, path, kind }) => {
            let kind = match kind {
                ItemKind::Dir => ToldKind::Dir,
                ItemKind::Link(target) => ToldKind::Link(target.into()),
                ItemKind::Other => ToldKind::Other,
            };
            Told::Item { change, path, kind }
        }
        Event::NotDeleting(refusal) => Told::NotDeleting(match refusal {
            Refusal::Source => Undeleted::Source,
            Refusal::CutShort => Undeleted::CutShort,
            Refusal::EmptySource => Undeleted::EmptySource,
            Refusal::Limit { entries, max: MaxDelete::Entries(max) } => Undeleted::Entries { entries, max },
            Refusal::Limit { entries, max: MaxDelete::Percent(max) } => Undeleted::Percent { entries, max },
        }),
        Event::Limited(Limited { resource, max, connections, .. }) => {
            let resource = match resource {
                Resource::OpenFiles => 0,
                Resource::Threads => 1,
                Resource::Memory => 2,
            };
            Told::Limited { resource, max, connections }
        }
        Event::Recorded(line) => Told::Recorded(line),
        // That the receiver waits for its sender is nothing to tell him; and there is but one.
        Event::Retrying { .. } | Event::Differs { .. } | Event::Disagrees { .. } | Event::SourceLost { .. } => {
            return None;
        }
    })
}

impl Report {
    /// What is known of a receiver elsewhere, as of its own run.
    pub(crate) fn state(&self, called: u32) -> ReportState {
        // Sources may have sparse files that are as long as any, several of them: a sender has no use for more than this.
        let counters = self.counters.each().map(|counter| counter.now().min(REPORT_COUNTER_MAX)).to_vec();
        ReportState { called, is_scan_done: self.is_scan_done(), counters }
    }

    /// Takes over the numbers of a receiver elsewhere. Answers whether there was anything new in them.
    pub(crate) fn take_state(&self, state: &ReportState) -> bool {
        let mut is_new = false;
        let before = self.before.lock();
        let of_before = |wanted: &Count| {
            let at = self.counters.each().iter().position(|counter| std::ptr::eq(*counter, wanted));
            at.and_then(|at| before.get(at)).copied().unwrap_or(0)
        };
        let committed_before = of_before(&self.counters.files_committed);
        let fetched_before = of_before(&self.counters.bytes_fetched);
        for (at, (counter, now)) in self.counters.each().into_iter().zip(&state.counters).enumerate() {
            let is = |other: &Count| std::ptr::eq(counter, other);
            let here = match before.get(at) {
                _ if is(&self.counters.reconnects) => self.reconnected_here.now(),
                Some(before) if self.counters.done().into_iter().any(is) => *before,
                _ => 0,
            };
            // What the one before has committed or fetched is there already for this one, and is counted.
            let earlier = if is(&self.counters.files_unchanged) {
                committed_before
            } else if is(&self.counters.bytes_reused) {
                fetched_before
            } else {
                0
            };
            let now = now.saturating_add(here).saturating_sub(earlier);
            is_new |= counter.now() != now;
            counter.set(now);
        }
        drop(before);
        if state.is_scan_done {
            self.set_scan_done();
        }
        is_new
    }

    /// Tells of what happened to a receiver elsewhere, whose counters say it already.
    pub(crate) fn take_told(&self, told: Told) {
        let event = match told {
            Told::Failed { path, is_moving_source, kind, text } => {
                let cause = Cause::Told { kind, text, is_moving_source };
                self.note_failure(&cause);
                Event::Failed { path, cause }
            }
            Told::Skipped { path, kind } => Event::Skipped { path, kind },
            Told::Committed { path, bytes } => Event::Committed { path, bytes },
            Told::Item { change, path, kind } => {
                let kind = match kind {
                    ToldKind::Dir => ItemKind::Dir,
                    ToldKind::Link(target) => ItemKind::Link(target.into()),
                    ToldKind::Other => ItemKind::Other,
                };
                Event::Item(Item { change, path, kind })
            }
            Told::NotDeleting(why) => return self.refuse(refusal_of(why)),
            Told::Limited { resource, max, connections } => {
                let resource = match resource {
                    0 => Resource::OpenFiles,
                    1 => Resource::Threads,
                    _ => Resource::Memory,
                };
                Event::Limited(Limited { resource, max, connections, is_elsewhere: true })
            }
            Told::Recorded(line) => Event::Recorded(line),
        };
        self.tell(event);
    }
}

fn refusal_of(why: Undeleted) -> Refusal {
    match why {
        Undeleted::Source => Refusal::Source,
        Undeleted::CutShort => Refusal::CutShort,
        Undeleted::EmptySource => Refusal::EmptySource,
        Undeleted::Entries { entries, max } => Refusal::Limit { entries, max: MaxDelete::Entries(max) },
        Undeleted::Percent { entries, max } => Refusal::Limit { entries, max: MaxDelete::Percent(max) },
    }
}

impl Limit {
    const ALL: [Self; 4] = [Self::Network, Self::Source, Self::Destination, Self::Cpu];

    /// Its number on the wire.
    pub(crate) fn code(self) -> u8 {
        Self::ALL.iter().position(|limit| *limit == self).unwrap_or(0) as u8
    }

    /// The limit with this number, if it is one.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::sync_channel;

    use fastcp_model::{RelPath, SpecialKind, Status};
    use fastcp_wire::report::Numbered;

    use super::{Limit, told};
    use crate::budget::{Limited, Resource};
    use crate::report::{Cause, Event, Item, ItemKind, Refusal, Report};
    use crate::settings::MaxDelete;

    fn path() -> RelPath {
        RelPath::new(b"a/b\xff").expect("lawful")
    }

    /// How an event is shown: what people and programs are told of it.
    fn shown(event: &Event) -> String {
        match event {
            Event::Failed { path, cause } => format!("{path} {} {} {cause}", cause.kind(), cause.is_moving_source()),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn an_event_is_the_same_at_the_other_end() {
        let source = io::Error::from_raw_os_error(28);
        let causes = [
            Cause::Source(Status::NotFound),
            Cause::Source(Status::PermissionDenied),
            Cause::Destination { operation: "cannot write", source },
            Cause::Checksum { want: 1, got: 2 },
            Cause::MountPoint,
        ];
        let limit = |max| Event::NotDeleting(Refusal::Limit { entries: 5, max });
        let limited = |resource| Event::Limited(Limited { resource, max: 24, connections: 2, is_elsewhere: true });
        let item = |kind| Event::Item(Item { change: *b">f+++++++++", path: path(), kind });
        let all = || {
            let causes = causes.iter().map(|cause| Event::Failed {
                path: path(),
                cause: Cause::Told {
                    kind: cause.kind().to_owned(),
                    text: cause.to_string(),
                    is_moving_source: cause.is_moving_source(),
                },
            });
            let others = [
                Event::Skipped { path: path(), kind: SpecialKind::Socket },
                Event::Committed { path: path(), bytes: u64::MAX },
                item(ItemKind::Dir),
                item(ItemKind::Other),
                item(ItemKind::Link((*b"x\xff").into())),
                Event::NotDeleting(Refusal::Source),
                Event::NotDeleting(Refusal::CutShort),
                Event::NotDeleting(Refusal::EmptySource),
                limit(MaxDelete::Entries(3)),
                limit(MaxDelete::Percent(3)),
                limited(Resource::OpenFiles),
                limited(Resource::Threads),
                limited(Resource::Memory),
                Event::Recorded(b"line\n".to_vec()),
            ];
            causes.chain(others).collect::<Vec<_>>()
        };
        let (events, heard) = sync_channel(100);
        let report = Report::new(events);
        for event in all() {
            let sent = Numbered { number: 1, event: told(event).expect("told") }.encode();
            report.take_told(Numbered::decode(&sent).expect("lawful").event);
        }
        report.close();
        let there: Vec<_> = heard.iter().map(|event| shown(&event)).collect();
        assert_eq!(there, all().iter().map(shown).collect::<Vec<_>>());
        assert_eq!(report.failures().len(), 5);
        assert_eq!(report.refusal(), Some(Refusal::Limit { entries: 5, max: MaxDelete::Percent(3) }));
    }

    #[test]
    fn all_counters_are_the_same_at_the_other_end() {
        let reports = [(); 2].map(|()| Report::new(sync_channel(1).0));
        for (number, counter) in reports[0].counters.each().into_iter().enumerate() {
            counter.add(number as u64 + 1);
        }
        let state = reports[0].state(7);
        assert!(reports[1].take_state(&state) && !reports[1].take_state(&state));
        assert_eq!(format!("{:?}", reports[0].counters), format!("{:?}", reports[1].counters));
        assert!(!format!("{:?}", reports[1].counters).contains("(0)"), "each is among them");
    }

    #[test]
    fn what_one_receiver_has_done_counts_once_when_another_goes_on() {
        let [first, second, here] = [(); 3].map(|()| Report::new(sync_channel(1).0));
        first.counters.files_committed.add(2);
        first.counters.bytes_fetched.add(1000);
        here.take_state(&first.state(0));
        here.begin_again();
        // It finds what the first has left, and what an earlier run had left.
        second.counters.files_unchanged.add(2 + 5);
        second.counters.bytes_reused.add(1000 + 70);
        second.counters.bytes_fetched.add(300);
        second.counters.files_committed.add(1);
        here.take_state(&second.state(0));
        let counters = &here.counters;
        assert_eq!((counters.files_committed.now(), counters.files_unchanged.now()), (3, 5));
        assert_eq!((counters.bytes_fetched.now(), counters.bytes_reused.now()), (1300, 70));
    }

    #[test]
    fn limits_have_numbers() {
        for limit in Limit::ALL {
            assert_eq!(Limit::from_code(limit.code()), Some(limit));
        }
        assert_eq!(Limit::from_code(4), None);
    }
}
