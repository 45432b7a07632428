//! Events as the objects of `--json`.
//!
//! A name is a string as it is, not escaped as on a terminal: JSON has its own escapes. A name that is not UTF-8
//! cannot be a string of JSON. Its string has U+FFFD in place of what is not, and all its bytes stand beside it in
//! base64: `path` and `path_base64`, `target` and `target_base64`. The messages in `error` and `message` are those
//! of stderr.

use fastcp_engine::{Event, Item, ItemKind};
use fastcp_model::RelPath;
use serde_json::{Map, Value, json};

use crate::wording::kind_name;

/// An event as one object.
pub(crate) fn as_json(event: &Event) -> Value {
    match event {
        Event::Item(item) => item_as_json(item),
        Event::NotDeleting(refusal) => {
            json!({"event": "not_deleting", "reason": refusal.name(), "error": refusal.to_string()})
        }
        Event::Failed { path, cause } => {
            let failed = json!({"event": "failed", "cause": cause.kind(), "error": cause.to_string()});
            with_path(failed, path)
        }
        Event::Differs { path, what } => with_path(json!({"event": "differs", "what": what.name()}), path),
        Event::Skipped { path, kind } => with_path(json!({"event": "skipped", "kind": kind_name(*kind)}), path),
        Event::Committed { path, bytes } => with_path(json!({"event": "committed", "bytes": bytes}), path),
        Event::Disagrees { path, source } => with_path(json!({"event": "disagrees", "source": source}), path),
        Event::SourceLost { lost, lead } => json!({"event": "source_lost", "source": lost, "instead": lead}),
        Event::Recorded(line) => json!({"event": "recorded", "line": String::from_utf8_lossy(line)}),
        Event::Limited(limited) => json!({
            "event": "limited", "resource": limited.resource.name(), "max": limited.max,
            "connections": limited.connections, "error": limited.to_string(),
        }),
        Event::Retrying { error, wait, left, .. } => json!({
            "event": "retrying", "error": error,
            "wait_ms": wait.as_millis() as u64, "left_ms": left.as_millis() as u64,
        }),
    }
}

fn item_as_json(item: &Item) -> Value {
    let change = String::from_utf8_lossy(&item.change);
    let object = with_path(json!({"event": "item", "change": change}), &item.path);
    match &item.kind {
        ItemKind::Link(target) => with_name(object, "target", target),
        ItemKind::Dir | ItemKind::Other => object,
    }
}

/// The root of the tree is `.`.
fn with_path(object: Value, path: &RelPath) -> Value {
    with_name(object, "path", if path.is_root() { b"." } else { path.as_bytes() })
}

pub(crate) fn with_name(object: Value, field: &str, name: &[u8]) -> Value {
    let mut fields: Map<String, Value> = object.as_object().cloned().unwrap_or_default();
    fields.insert(field.to_owned(), String::from_utf8_lossy(name).into());
    if std::str::from_utf8(name).is_err() {
        fields.insert(format!("{field}_base64"), base64(name).into());
    }
    Value::Object(fields)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit > group.len() { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{base64, with_name};

    #[test]
    fn base64_is_as_in_the_rfc() {
        let examples = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, text) in examples.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_name_is_a_string_as_it_is_or_bytes_beside_it() {
        let named = |name: &[u8]| with_name(json!({}), "path", name);
        assert_eq!(named("a\\b\"\n\u{e9}".as_bytes()), json!({"path": "a\\b\"\n\u{e9}"}));
        assert_eq!(named(b"a\xff"), json!({"path": "a\u{fffd}", "path_base64": "Yf8="}));
    }
}
