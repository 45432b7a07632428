//! What a receiver is told, as it travels from a sender that dialled: each setting by the name of its option.
//!
//! Only what differs from the default is named. Whoever does not know a name, or a value, refuses it by its name:
//! nothing that a user asked for is passed over in silence.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};
use std::time::Duration;

use fastcp_model::Escaped;
use fastcp_wire::push::Setting;

use super::{
    Deletion, Delta, Durability, EmptySource, Itemize, ManifestHash, MaxDelete, Placement, ReceivePath,
    ReceiverSettings, Recording, VerifyOver,
};

/// Waiting longer for a peer than this holds what others may need.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// All that a receiver is told.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    pub(crate) receiver: ReceiverSettings,
    /// Whether it only tells what it would do.
    pub(crate) is_dry_run: bool,
    /// Whether it uses as many connections as increase the throughput.
    pub(crate) is_tuned: bool,
    /// How long it waits for its peer.
    pub(crate) retry: Duration,
    /// How it takes bodies.
    pub(crate) receive_path: ReceivePath,
}

/// A setting that is not known here, or has a value that is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("this server does not know the setting \"{0}\"")]
    Unknown(String),
    #[error("the setting \"{name}\" has the value \"{value}\", which this server does not know")]
    Value { name: String, value: String },
}

/// A setting that is one of a few.
trait Word: Sized + Copy + PartialEq + 'static {
    const ALL: &'static [(Self, &'static str)];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(value, _)| *value == self).map_or("", |(_, word)| word)
    }

    fn of(word: &[u8]) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| known.as_bytes() == word).map(|(value, _)| *value)
    }
}

impl Word for Durability {
    const ALL: &'static [(Self, &'static str)] = &[(Self::None, "none"), (Self::Batch, "batch"), (Self::File, "file")];
}

impl Word for VerifyOver {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Received, "received"), (Self::Written, "written"), (Self::Disk, "disk")];
}

impl Word for ReceivePath {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Auto, "auto"), (Self::Copy, "copy"), (Self::Splice, "splice")];
}

/// What an option without a value travels as.
const ON: &str = "";
/// A number of connections that throughput decides.
const AUTO: &str = "auto";

impl Orders {
    /// The settings that differ from the defaults.
    pub(crate) fn encode(&self) -> Vec<Setting> {
        let Self { receiver, is_dry_run, is_tuned, retry, receive_path } = self;
        let ReceiverSettings {
            durability,
            delta,
            placement,
            verify,
            manifest,
            deletion,
            // It travels beside the settings.
            filter: _,
            sizes,
            backup_dir,
            // The receiver's own affair.
            setuid: _,
            itemize,
            tell_committed,
        } = receiver;
        let mut all = vec![Setting::new("durability", durability.word()), Setting::new("verify", verify.word())];
        all.push(Setting::new("retry", retry.as_secs()));
        let mut switch = |name, is_on: bool| all.extend(is_on.then(|| Setting::new(name, ON)));
        switch("dry-run", *is_dry_run);
        switch("whole-file", *delta == Delta::Unused);
        switch("inplace", *placement == Placement::InPlace);
        switch("itemize-changes", *itemize == Itemize::Changes);
        switch("verbose", *tell_committed);
        switch("delete", deletion.is_some());
        switch("force-empty", deletion.is_some_and(|deletion| deletion.empty_source == EmptySource::Deletes));
        all.extend(deletion.and_then(|deletion| deletion.max).map(|max| Setting::new("max-delete", max)));
        all.extend(manifest.as_ref().map(|manifest| Setting::new("manifest-hash", manifest.hash().name())));
        all.extend(sizes.max.map(|bytes| Setting::new("max-size", bytes)));
        all.extend(sizes.min.map(|bytes| Setting::new("min-size", bytes)));
        // `./` before it means nothing below the destination.
        let is_name = |part: &Component<'_>| *part != Component::CurDir;
        let bytes =
            |dir: &PathBuf| dir.components().filter(is_name).collect::<PathBuf>().as_os_str().as_bytes().to_vec();
        all.extend(backup_dir.as_ref().map(|dir| Setting { name: "backup-dir".to_owned(), value: bytes(dir) }));
        if *is_tuned {
            all.push(Setting::new("conns", AUTO));
        }
        if *receive_path != ReceivePath::Auto {
            all.push(Setting::new("receive-path", receive_path.word()));
        }
        all
    }

    /// What the settings say.
    ///
    /// # Errors
    /// The first that is not known.
    pub(crate) fn decode(settings: &[Setting]) -> Result<Self, OrderError> {
        let mut orders = Self {
            receiver: ReceiverSettings::default(),
            is_dry_run: false,
            is_tuned: false,
            retry: super::RETRY_DEFAULT,
            receive_path: ReceivePath::Auto,
        };
        let mut deletion = Deletion { max: None, empty_source: EmptySource::Refused };
        let mut deletes = false;
        for Setting { name, value } in settings {
            let receiver = &mut orders.receiver;
            let unknown = || OrderError::Value { name: name.clone(), value: Escaped(value).to_string() };
            let on = || if value.is_empty() { Ok(()) } else { Err(unknown()) };
            match name.as_str() {
                "durability" => receiver.durability = Durability::of(value).ok_or_else(unknown)?,
                "verify" => receiver.verify = VerifyOver::of(value).ok_or_else(unknown)?,
                "receive-path" => orders.receive_path = ReceivePath::of(value).ok_or_else(unknown)?,
                "retry" => orders.retry = Duration::from_secs(number(value).ok_or_else(unknown)?).min(RETRY_MAX),
                "conns" if value == AUTO.as_bytes() => orders.is_tuned = true,
                "conns" => return Err(unknown()),
                "dry-run" => orders.is_dry_run = on().map(|()| true)?,
                "whole-file" => receiver.delta = on().map(|()| Delta::Unused)?,
                "inplace" => receiver.placement = on().map(|()| Placement::InPlace)?,
                "itemize-changes" => receiver.itemize = on().map(|()| Itemize::Changes)?,
                "verbose" => receiver.tell_committed = on().map(|()| true)?,
                "delete" => deletes = on().map(|()| true)?,
                "force-empty" => deletion.empty_source = on().map(|()| EmptySource::Deletes)?,
                "max-delete" => deletion.max = Some(max_delete(value).ok_or_else(unknown)?),
                "max-size" => receiver.sizes.max = Some(number(value).ok_or_else(unknown)?),
                "min-size" => receiver.sizes.min = Some(number(value).ok_or_else(unknown)?),
                "manifest-hash" => {
                    let hash = ManifestHash::from_name(value).ok_or_else(unknown)?;
                    receiver.manifest = Some(Recording::Told(hash));
                }
                "backup-dir" => receiver.backup_dir = Some(OsStr::from_bytes(value).into()),
                _ => return Err(OrderError::Unknown(Escaped(name.as_bytes()).to_string())),
            }
        }
        orders.receiver.deletion = deletes.then_some(deletion);
        Ok(orders)
    }
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

fn max_delete(value: &[u8]) -> Option<MaxDelete> {
    match value.strip_suffix(b"%") {
        Some(percent) => number(percent).filter(|percent| *percent <= 100).map(MaxDelete::Percent),
        None => number(value).map(MaxDelete::Entries),
    }
}

/// For the fuzz target and for tests.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing {
    use fastcp_wire::push::{Push, Setting};

    use super::Orders;

    /// Names of settings, known and not, each with a value that it may have, or may not.
    pub(crate) const SETTINGS: [(&str, &[u8]); 18] = [
        ("durability", b"none"),
        ("verify", b"written"),
        ("receive-path", b"splice"),
        ("retry", b"0"),
        ("conns", b"auto"),
        ("dry-run", b""),
        ("whole-file", b""),
        ("inplace", b""),
        ("itemize-changes", b""),
        ("verbose", b""),
        ("delete", b""),
        ("force-empty", b""),
        ("max-delete", b"1%"),
        ("max-size", b"1000"),
        ("min-size", b"1"),
        ("manifest-hash", b"blake3"),
        ("backup-dir", b"../outside"),
        ("unheard-of", b"value"),
    ];

    /// Reads `bytes` as the payload of a PUSH frame, and as settings of known names: a length, and a value.
    ///
    /// # Panics
    /// Where settings that are taken are not the same once they have travelled on.
    pub fn settings(bytes: &[u8]) {
        if let Ok(push) = Push::decode(bytes) {
            check(&push.settings);
        }
        let (mut all, mut rest) = (Vec::new(), bytes);
        while let Some(([which, len], after)) = rest.split_first_chunk() {
            let (value, after) = after.split_at(after.len().min((*len).into()));
            let name = SETTINGS[usize::from(*which) % SETTINGS.len()].0.to_owned();
            all.push(Setting { name, value: value.to_vec() });
            rest = after;
        }
        check(&all);
    }

    fn check(settings: &[Setting]) {
        let Ok(orders) = Orders::decode(settings) else { return };
        let again = Orders::decode(&orders.encode()).expect("what was taken is lawful");
        assert_eq!(again.encode(), orders.encode());
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use fastcp_wire::push::{Push, Setting};

    use super::{OrderError, Orders};
    use crate::settings::{
        Deletion, Delta, Durability, EmptySource, Itemize, ManifestHash, MaxDelete, Placement, ReceivePath,
        ReceiverSettings, Recording, SetUid, SizeLimits, VerifyOver,
    };

    fn said(orders: &Orders) -> String {
        format!("{orders:?}")
    }

    #[test]
    fn every_setting_arrives_as_it_was_sent() {
        let plain = Orders {
            receiver: ReceiverSettings::default(),
            is_dry_run: false,
            is_tuned: false,
            retry: Duration::from_secs(30),
            receive_path: ReceivePath::Auto,
        };
        let all = |max| Orders {
            receiver: ReceiverSettings {
                durability: Durability::File,
                delta: Delta::Unused,
                placement: Placement::InPlace,
                verify: VerifyOver::Disk,
                manifest: Some(Recording::Told(ManifestHash::Sha256)),
                deletion: Some(Deletion { max: Some(max), empty_source: EmptySource::Deletes }),
                filter: Default::default(),
                sizes: SizeLimits { min: Some(1), max: Some(u64::MAX) },
                backup_dir: Some(PathBuf::from("a/b")),
                setuid: SetUid::Kept,
                itemize: Itemize::Changes,
                tell_committed: true,
            },
            is_dry_run: true,
            is_tuned: true,
            retry: Duration::from_secs(7),
            receive_path: ReceivePath::Splice,
        };
        for orders in [plain, all(MaxDelete::Entries(7)), all(MaxDelete::Percent(100))] {
            assert_eq!(Orders::decode(&orders.encode()).map(|decoded| said(&decoded)), Ok(said(&orders)));
        }
        assert_eq!(all(MaxDelete::Entries(0)).encode().len(), 17, "each has its own name");
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_name() {
        let unknown = [Setting::new("durability", "batch"), Setting::new("hard-links", "")];
        assert_eq!(Orders::decode(&unknown).expect_err("refused"), OrderError::Unknown("hard-links".to_owned()));
        for (name, value) in [
            ("durability", "twice"),
            ("verify", ""),
            ("delete", "yes"),
            ("max-delete", "101%"),
            ("max-delete", "-1"),
            ("retry", "1s"),
            ("retry", "+1"),
            ("manifest-hash", "md5"),
            ("conns", "4"),
        ] {
            let error = Orders::decode(&[Setting::new(name, value)]).expect_err("refused");
            assert_eq!(error, OrderError::Value { name: name.to_owned(), value: value.to_owned() });
        }
    }

    #[test]
    fn any_bytes_that_settings_can_become_are_taken_as_they_are_or_refused() {
        let seeds: [&[u8]; 3] = [
            &[0, 4, b'n', b'o', b'n', b'e', 3, 2, b'1', b'0', 10, 0, 12, 3, b'1', b'0', b'%'],
            &[14, 6, b'.', b'/', b'k', b'e', b'p', b't', 5, 0, 7, 0],
            &[0, 1, 0, 0, 0, 0, 1, 7, b'd', b'r', b'y', b'-', b'r', b'u', b'n', 0],
        ];
        crate::fuzzing::mutated(&seeds, 2_000, super::fuzzing::settings);
    }

    #[test]
    fn the_longest_wait_is_bounded() {
        let orders = Orders::decode(&[Setting::new("retry", u64::MAX)]).expect("lawful");
        assert_eq!(orders.retry, Duration::from_secs(3600));
    }

    #[test]
    fn all_settings_fit_into_a_frame() {
        let orders = Orders::decode(&[Setting { name: "backup-dir".to_owned(), value: vec![b'x'; 4096] }]);
        let offer = fastcp_wire::offer::Place {
            path: fastcp_model::RelPath::root(),
            scope: fastcp_wire::offer::Scope::Contents,
        };
        let settings = orders.expect("lawful").encode();
        let push = Push { offer, into: fastcp_model::RelPath::root(), new_name: None, settings, rules: Vec::new() };
        assert_eq!(Push::decode(&push.encode().expect("within the limits")), Ok(push));
    }
}
