//! What a disk is, and how it is set.

use super::control::{Description, Disk};
use crate::print;
use anyhow::Result;
use serde_json::{Map, Value};

/// Keys that there may be several lines of.
const LISTS: [&str; 2] = ["part", "warning"];

pub(super) fn print(disk: &mut Disk, json: bool) -> Result<()> {
    // What the disk is asked, because nobody else knows; one that cannot say stays as it is.
    let _ = disk.order(b"power");
    let description = disk.description()?;
    if json {
        return Ok(print::json("disk-info", &object(&description))?);
    }
    for (key, value) in description.lines() {
        let value = if value.is_empty() { "-" } else { value };
        let line = match key {
            "geometry" => format!("{:<24} {}", "size", size(value)),
            key => format!("{:<24} {value}", key.replace('-', " ")),
        };
        print::line_out(&line)?;
    }
    Ok(())
}

/// Sectors and their size, with what that makes.
fn size(geometry: &str) -> String {
    let numbers: Vec<u64> = geometry.split(' ').filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [sectors, bytes] => {
            let all = print::bytes(sectors.saturating_mul(bytes));
            format!("{all}: {sectors} sectors of {bytes} bytes")
        }
        _ => geometry.to_owned(),
    }
}

/// The lines of `ctl` as an object: numbers where they are numbers, lists where there are several.
fn object(description: &Description) -> Map<String, Value> {
    let mut object = Map::new();
    for key in LISTS {
        object.insert(format!("{key}s"), Value::Array(Vec::new()));
    }
    for (key, value) in description.lines() {
        match key {
            "geometry" => {
                let names = ["sectors", "sector_bytes"].into_iter();
                for (name, number) in names.zip(value.split(' ')) {
                    object.insert(name.to_owned(), scalar(number));
                }
            }
            key if LISTS.contains(&key) => {
                if let Some(Value::Array(list)) = object.get_mut(&format!("{key}s")) {
                    list.push(value.into());
                }
            }
            // What may look like a number is none.
            "serial" | "model" | "firmware" => {
                object.insert(key.to_owned(), value.into());
            }
            key => {
                object.insert(key.replace('-', "_"), scalar(value));
            }
        }
    }
    object
}

fn scalar(text: &str) -> Value {
    match (text, text.parse::<u64>()) {
        (_, Ok(number)) => number.into(),
        ("yes", _) => true.into(),
        ("no", _) => false.into(),
        (text, _) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_fields() {
        let text = "device sdC0\nserial 0012\nlook-ahead on\ntrim yes\nlink 3\n\
                    geometry 100 512\npart 0 0 100\npart 1 5 9\n";
        let object = Value::Object(object(&Description(text.to_owned())));
        let expected = serde_json::json!({
            "device": "sdC0", "serial": "0012", "look_ahead": "on", "trim": true, "link": 3,
            "sectors": 100, "sector_bytes": 512, "parts": ["0 0 100", "1 5 9"], "warnings": [],
        });
        assert_eq!(object, expected);
        assert_eq!(size("2048 512"), "1 MiB: 2048 sectors of 512 bytes");
    }
}
