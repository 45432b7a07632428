//! What a receiver tells a sender that dialled: what happens, how far it is, and how it ended.
//!
//! A connection of its own carries it ([`crate::hello::Lane::Report`]). Events are numbered, and the sender says
//! which it has seen, so that none is lost with a connection.

use fastcp_model::{Name, PATH_BYTES_MAX, RelPath, SpecialKind};

use crate::WireError;
use crate::limits::{
    CAUSE_BYTES_MAX, EVENT_NUMBER_MAX, EVENT_PATH_BYTES_MAX, LINK_TARGET_BYTES_MAX, RECORD_BYTES_MAX,
    REPORT_COUNTER_MAX, REPORT_COUNTERS_MAX, REPORT_TEXT_BYTES_MAX,
};
use crate::reader::{Reader, put_short_bytes, within};

/// Something that happened, and which of all that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Counted from 1.
    pub number: u64,
    /// What it was.
    pub event: Told,
}

/// Something that happened at the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An entry could not be brought over.
    Failed {
        /// Relative to the destination.
        path: RelPath,
        /// Whether the source only moved on meanwhile.
        is_moving_source: bool,
        /// A short name that failures are counted under, in printable ASCII.
        kind: String,
        /// Why, in words.
        text: String,
    },
    /// A device, pipe or socket was passed over.
    Skipped {
        /// Relative to the destination.
        path: RelPath,
        /// What it is.
        kind: SpecialKind,
    },
    /// An entry changes, or would.
    Item {
        /// Eleven characters, printable ASCII.
        change: [u8; 11],
        /// Relative to the destination.
        path: RelPath,
        /// What it is.
        kind: ToldKind,
    },
    /// Nothing is deleted.
    NotDeleting(Undeleted),
    /// The system allows less than was asked for.
    Limited {
        /// 0 for descriptors, 1 for threads, 2 for memory.
        resource: u8,
        /// What is allowed.
        max: u64,
        /// Connections that there will be.
        connections: u16,
    },
    /// A line for the manifest that the sender keeps.
    Recorded(Vec<u8>),
    /// A file has its content, and its name.
    Committed {
        /// Relative to the destination.
        path: RelPath,
        /// The length of the file.
        bytes: u64,
    },
}

/// What a changed entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToldKind {
    /// A directory.
    Dir,
    /// A symbolic link that points there.
    Link(Vec<u8>),
    /// Anything else.
    Other,
}

/// Why nothing is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeleted {
    /// The source could not be read completely.
    Source,
    /// The run ended before the offer did.
    CutShort,
    /// The source is empty.
    EmptySource,
    /// More entries would go than were allowed.
    Entries {
        /// How many would go.
        entries: u64,
        /// How many may.
        max: u64,
    },
    /// More would go than so many in a hundred.
    Percent {
        /// How many would go.
        entries: u64,
        /// How many in a hundred may.
        max: u8,
    },
}

const RESOURCE_LAST: u8 = 2;

const SPECIALS: [SpecialKind; 4] =
    [SpecialKind::Fifo, SpecialKind::Socket, SpecialKind::CharDevice, SpecialKind::BlockDevice];

impl Numbered {
    /// The payload of a [`crate::frame::FrameType::ReportEvent`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.number.to_be_bytes().to_vec();
        match &self.event {
            Told::Failed { path, is_moving_source, kind, text } => {
                out.extend([0, u8::from(*is_moving_source)]);
                put_short_bytes(&mut out, path.as_bytes());
                put_short_bytes(&mut out, shortened(kind, CAUSE_BYTES_MAX));
                put_short_bytes(&mut out, shortened(text, REPORT_TEXT_BYTES_MAX));
            }
            Told::Skipped { path, kind } => {
                let code = SPECIALS.iter().position(|special| special == kind).unwrap_or(0);
                out.extend([1, code as u8]);
                put_short_bytes(&mut out, path.as_bytes());
            }
            Told::Item { change, path, kind } => {
                out.push(2);
                out.extend(change);
                put_short_bytes(&mut out, path.as_bytes());
                match kind {
                    ToldKind::Dir => out.push(0),
                    ToldKind::Other => out.push(1),
                    ToldKind::Link(target) => {
                        out.push(2);
                        put_short_bytes(&mut out, target);
                    }
                }
            }
            Told::NotDeleting(why) => put_undeleted(&mut out, *why),
            Told::Limited { resource, max, connections } => {
                out.extend([4, *resource]);
                out.extend(max.to_be_bytes());
                out.extend(connections.to_be_bytes());
            }
            Told::Recorded(line) => {
                out.push(5);
                put_short_bytes(&mut out, line);
            }
            Told::Committed { path, bytes } => {
                out.push(6);
                out.extend(bytes.to_be_bytes());
                put_short_bytes(&mut out, path.as_bytes());
            }
        }
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// An unknown kind, an unlawful path, or a field beyond its limit.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let number = event_number(&mut reader, "number")?;
        let event = match reader.u8()? {
            0 => {
                let is_moving_source = flag(&mut reader, "moving")?;
                let path = path(&mut reader)?;
                let kind = text(&mut reader, "cause_len", CAUSE_BYTES_MAX)?;
                check_printable("cause", kind.as_bytes())?;
                let text = text(&mut reader, "text_len", REPORT_TEXT_BYTES_MAX)?;
                Told::Failed { path, is_moving_source, kind, text }
            }
            1 => {
                let code = reader.u8()?;
                let kind = SPECIALS.get(usize::from(code)).copied();
                let kind = kind.ok_or(WireError::Value { field: "special_kind", value: code.into() })?;
                Told::Skipped { path: path(&mut reader)?, kind }
            }
            2 => {
                let change = reader.array()?;
                check_printable("change", &change)?;
                let path = path(&mut reader)?;
                Told::Item { change, path, kind: item_kind(&mut reader)? }
            }
            3 => Told::NotDeleting(undeleted(&mut reader)?),
            4 => Told::Limited { resource: resource(&mut reader)?, max: reader.u64()?, connections: reader.u16()? },
            5 => Told::Recorded(reader.short_bytes("record_len", RECORD_BYTES_MAX)?.to_vec()),
            6 => Told::Committed { bytes: reader.u64()?, path: path(&mut reader)? },
            other => return Err(WireError::Value { field: "event", value: other.into() }),
        };
        reader.finish()?;
        Ok(Self { number, event })
    }
}

fn put_undeleted(out: &mut Vec<u8>, why: Undeleted) {
    out.push(3);
    let (code, numbers) = match why {
        Undeleted::Source => (0, None),
        Undeleted::CutShort => (1, None),
        Undeleted::EmptySource => (2, None),
        Undeleted::Entries { entries, max } => (3, Some((entries, max))),
        Undeleted::Percent { entries, max } => (4, Some((entries, max.into()))),
    };
    out.push(code);
    if let Some((entries, max)) = numbers {
        out.extend(entries.to_be_bytes());
        out.extend(max.to_be_bytes());
    }
}

fn undeleted(reader: &mut Reader<'_>) -> Result<Undeleted, WireError> {
    Ok(match reader.u8()? {
        0 => Undeleted::Source,
        1 => Undeleted::CutShort,
        2 => Undeleted::EmptySource,
        3 => Undeleted::Entries { entries: reader.u64()?, max: reader.u64()? },
        4 => {
            let (entries, max) = (reader.u64()?, reader.u64()?);
            let percent = u8::try_from(max).ok().filter(|percent| *percent <= 100);
            Undeleted::Percent { entries, max: percent.ok_or(WireError::Value { field: "max", value: max })? }
        }
        other => return Err(WireError::Value { field: "reason", value: other.into() }),
    })
}

fn resource(reader: &mut Reader<'_>) -> Result<u8, WireError> {
    match reader.u8()? {
        resource @ 0..=RESOURCE_LAST => Ok(resource),
        other => Err(WireError::Value { field: "resource", value: other.into() }),
    }
}

fn item_kind(reader: &mut Reader<'_>) -> Result<ToldKind, WireError> {
    Ok(match reader.u8()? {
        0 => ToldKind::Dir,
        1 => ToldKind::Other,
        2 => ToldKind::Link(reader.short_bytes("target_len", LINK_TARGET_BYTES_MAX)?.to_vec()),
        other => return Err(WireError::Value { field: "item_kind", value: other.into() }),
    })
}

/// How far the receiver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportState {
    /// Data connections that it has asked for so far, those among them that the sender makes by itself.
    pub called: u32,
    /// Whether it has the whole offer.
    pub is_scan_done: bool,
    /// Its counters, in an order that both ends know.
    pub counters: Vec<u64>,
}

impl ReportState {
    /// The payload of a [`crate::frame::FrameType::ReportState`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.called.to_be_bytes().to_vec();
        out.push(u8::from(self.is_scan_done));
        out.extend((self.counters.len() as u16).to_be_bytes());
        self.counters.iter().for_each(|counter| out.extend(counter.to_be_bytes()));
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// A wrong length, or too many counters.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let called = reader.u32()?;
        let is_scan_done = flag(&mut reader, "scan_done")?;
        let count = usize::from(reader.u16()?);
        within("counter_count", count, REPORT_COUNTERS_MAX)?;
        let counters = (0..count).map(|_| counter(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { called, is_scan_done, counters })
    }
}

fn counter(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    match reader.u64()? {
        value if value <= REPORT_COUNTER_MAX => Ok(value),
        value => Err(WireError::TooLong { field: "counters", value, max: REPORT_COUNTER_MAX }),
    }
}

/// How the receiver's run ended. Its last [`ReportState`] came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportEnd {
    /// How many events there were.
    pub events: u64,
    /// 0 for a run that came to its end, else why it did not, in a number that the ends of a run agree on.
    pub outcome: u8,
    /// The reason in words.
    pub text: String,
    /// What held the run back, in a number that the ends of a run agree on.
    pub limit: u8,
}

impl ReportEnd {
    /// The payload of a [`crate::frame::FrameType::ReportEnd`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.events.to_be_bytes().to_vec();
        out.extend([self.outcome, self.limit]);
        put_short_bytes(&mut out, shortened(&self.text, REPORT_TEXT_BYTES_MAX));
        out
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// A field beyond its limit, or text that is none.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let events = event_number(&mut reader, "events")?;
        let (outcome, limit) = (reader.u8()?, reader.u8()?);
        let text = text(&mut reader, "text_len", REPORT_TEXT_BYTES_MAX)?;
        reader.finish()?;
        Ok(Self { events, outcome, text, limit })
    }
}

/// The payload of a [`crate::frame::FrameType::ReportSeen`] frame: the number of the last event that the sender has.
pub fn encode_seen(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Decodes the payload.
///
/// # Errors
/// A wrong length, or a number beyond its limit.
pub fn decode_seen(payload: &[u8]) -> Result<u64, WireError> {
    let mut reader = Reader::new(payload);
    let number = event_number(&mut reader, "seen")?;
    reader.finish()?;
    Ok(number)
}

/// The number of an event, or how many there were.
pub(crate) fn event_number(reader: &mut Reader<'_>, field: &'static str) -> Result<u64, WireError> {
    match reader.u64()? {
        number @ 0..=EVENT_NUMBER_MAX => Ok(number),
        other => Err(WireError::Value { field, value: other }),
    }
}

/// A path beneath the destination. That of an entry may be longer than any that can be asked for: then just this is what
/// is told of it.
fn path(reader: &mut Reader<'_>) -> Result<RelPath, WireError> {
    let bytes = reader.short_bytes("path_len", EVENT_PATH_BYTES_MAX)?;
    match bytes.iter().rposition(|&byte| byte == b'/') {
        Some(at) if bytes.len() > PATH_BYTES_MAX => Ok(RelPath::new(&bytes[..at])?.join(&Name::new(&bytes[at + 1..])?)),
        _ => Ok(RelPath::new(bytes)?),
    }
}

/// Nothing that a terminal would take for a command.
fn check_printable(field: &'static str, bytes: &[u8]) -> Result<(), WireError> {
    match bytes.iter().find(|byte| !matches!(byte, b' '..=b'~')) {
        Some(&byte) => Err(WireError::Value { field, value: byte.into() }),
        None => Ok(()),
    }
}

fn flag(reader: &mut Reader<'_>, field: &'static str) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(WireError::Value { field, value: other.into() }),
    }
}

/// Text of at most so many bytes, with its length before it in this field.
pub(crate) fn text(reader: &mut Reader<'_>, len_field: &'static str, max: usize) -> Result<String, WireError> {
    let bytes = reader.short_bytes(len_field, max)?;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or(0);
        let field = len_field.strip_suffix("_len").unwrap_or(len_field);
        WireError::Value { field, value: byte.into() }
    })?;
    Ok(text.to_owned())
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn shortened(text: &str, max: usize) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(max)]
}
