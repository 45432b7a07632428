//! PUSH: what a sender that dials tells the receiver to do, in one frame behind its HELLO.
//!
//! Settings travel by the names of the options that people type, so that a receiver which does not know one, or does
//! not allow it, can refuse it by name. What a value means is not known here.

use fastcp_model::rules::FilterRule;
use fastcp_model::{NAME_BYTES_MAX, Name, PATH_BYTES_MAX, RelPath};

use crate::WireError;
use crate::filter_rules::{put_rules, rules};
use crate::limits::{PUSH_BYTES_MAX, PUSH_SETTINGS_MAX, SETTING_NAME_BYTES_MAX, SETTING_VALUE_BYTES_MAX};
use crate::offer::{Place, Scope};
use crate::reader::{Reader, put_short_bytes, within};

/// The version of the frame that this crate speaks.
pub const PUSH_VERSION: u16 = 1;

/// What a sender asks a receiver to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// What of the sender's tree is to be asked for.
    pub offer: Place,
    /// Where it goes, beneath the root of the receiver.
    pub into: RelPath,
    /// The sender has a single file, which is to have this name in `into`, unless that is a directory there: then the
    /// file goes into it, under its own name.
    pub new_name: Option<Name>,
    /// What the receiver is told, each by the name of its option.
    pub settings: Vec<Setting>,
    /// What of the destination takes part: those of them that are the receiver's say what it does not delete.
    pub rules: Vec<FilterRule>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The option's name, without dashes before it.
    pub name: String,
    /// Its value as it would be typed.
    pub value: Vec<u8>,
}

impl Setting {
    /// A setting with a value that is text.
    pub fn new(name: &str, value: impl ToString) -> Self {
        Self { name: name.to_owned(), value: value.to_string().into_bytes() }
    }
}

impl Push {
    /// The payload of a [`crate::frame::FrameType::Push`] frame.
    ///
    /// # Errors
    /// Settings or rules beyond the limits.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        within("setting_count", self.settings.len(), PUSH_SETTINGS_MAX)?;
        let mut out = PUSH_VERSION.to_be_bytes().to_vec();
        out.push(self.offer.scope as u8);
        put_short_bytes(&mut out, self.offer.path.as_bytes());
        put_short_bytes(&mut out, self.into.as_bytes());
        put_short_bytes(&mut out, self.new_name.as_ref().map_or(&[], Name::as_bytes));
        out.push(self.settings.len() as u8);
        for Setting { name, value } in &self.settings {
            within("name_len", name.len(), SETTING_NAME_BYTES_MAX)?;
            within("value_len", value.len(), SETTING_VALUE_BYTES_MAX)?;
            put_short_bytes(&mut out, name.as_bytes());
            put_short_bytes(&mut out, value);
        }
        put_rules(&mut out, &self.rules)?;
        within("payload_len", out.len(), PUSH_BYTES_MAX)?;
        Ok(out)
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// Another version, an unlawful path, name or rule, a field beyond its limit, or a setting that comes twice.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        within("payload_len", payload.len(), PUSH_BYTES_MAX)?;
        let mut reader = Reader::new(payload);
        match reader.u16()? {
            PUSH_VERSION => {}
            other => return Err(WireError::Value { field: "version", value: other.into() }),
        }
        let scope = Scope::from_code(reader.u8()?)?;
        let path = RelPath::new(reader.short_bytes("path_len", PATH_BYTES_MAX)?)?;
        let into = RelPath::new(reader.short_bytes("into_len", PATH_BYTES_MAX)?)?;
        let new_name = match reader.short_bytes("new_name_len", NAME_BYTES_MAX)? {
            [] => None,
            bytes => Some(Name::new(bytes)?),
        };
        let count = usize::from(reader.u8()?);
        within("setting_count", count, PUSH_SETTINGS_MAX)?;
        let mut settings: Vec<Setting> = Vec::with_capacity(count);
        for _ in 0..count {
            let setting = setting(&mut reader)?;
            if settings.iter().any(|other| other.name == setting.name) {
                return Err(WireError::Value { field: "settings", value: count as u64 });
            }
            settings.push(setting);
        }
        let rules = rules(&mut reader)?;
        reader.finish()?;
        Ok(Self { offer: Place { path, scope }, into, new_name, settings, rules })
    }
}

fn setting(reader: &mut Reader<'_>) -> Result<Setting, WireError> {
    let name = reader.short_bytes("name_len", SETTING_NAME_BYTES_MAX)?;
    let unlawful = name.iter().find(|&&byte| !byte.is_ascii_lowercase() && !byte.is_ascii_digit() && byte != b'-');
    if let Some(&byte) = unlawful {
        return Err(WireError::Value { field: "name", value: byte.into() });
    }
    let name = String::from_utf8_lossy(name).into_owned();
    let value = reader.short_bytes("value_len", SETTING_VALUE_BYTES_MAX)?.to_vec();
    Ok(Setting { name, value })
}
