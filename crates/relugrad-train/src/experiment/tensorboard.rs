//! TensorBoard's event files: records of protocol buffers with checksums.
//!
//! A record is the length of its data (`u64`), the masked CRC-32C of these eight bytes, the data,
//! and its masked CRC-32C, all little-endian (TensorFlow, `core/lib/io/record_writer.h`). The data
//! are `Event` messages (`core/util/event.proto`).

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use relugrad_io::{GrowingFile, OutputFolder};

use crate::error::Result;

/// How the names of event files begin, by which TensorBoard finds them.
const PREFIX: &str = "events.out.tfevents.";

/// A file of events that is being written.
pub(super) struct Events {
    file: GrowingFile,
}

/// What TensorBoard reads.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    Session(Session),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

#[derive(Clone, PartialEq, Message)]
struct Session {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The status of a session that starts. TensorBoard then forgets events of this step and later
/// ones.
const START: i32 = 1;

impl Events {
    /// A new file; `done` steps have been taken before.
    pub(super) fn create(folder: &mut OutputFolder, done: u64) -> Result<Events> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        // Files are read in the order of their names, and a resumed training may begin within the
        // same second.
        let name = format!(
            "{PREFIX}{:010}.{:09}.relugrad",
            now.as_secs(),
            now.subsec_nanos()
        );
        let mut events = Events {
            file: folder.grow(&name, b"")?,
        };
        events.event(0, What::FileVersion("brain.Event:2".into()))?;
        if done > 0 {
            events.event(done + 1, What::Session(Session { status: START }))?;
        }
        Ok(events)
    }

    /// Writes named numbers of a step.
    pub(super) fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        let values = scalars.iter().map(|(tag, value)| Value {
            tag: tag.clone(),
            simple_value: *value as f32,
        });
        let values = values.collect();
        self.event(step, What::Summary(Summary { values }))
    }

    /// The file, which the folder brings to the disk.
    pub(super) fn file(&mut self) -> &mut GrowingFile {
        &mut self.file
    }

    fn event(&mut self, step: u64, what: What) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let event = Event {
            wall_time: now.unwrap_or_default().as_secs_f64(),
            step: step as i64,
            what: Some(what),
        };
        Ok(self.file.append(&record(&event.encode_to_vec()))?)
    }
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

/// TensorFlow's masked checksum: rotated and shifted, so that checksums of data with checksums in
/// them differ.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard 2.21.0's `RecordWriter` writes for the same event.
    #[test]
    fn a_record_is_tensorboards() {
        let event = Event {
            wall_time: 1.5,
            step: 3,
            what: Some(What::Summary(Summary {
                values: vec![Value {
                    tag: "loss".into(),
                    simple_value: 0.25,
                }],
            })),
        };
        let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(record(&event.encode_to_vec())), RECORD);
    }

    const RECORD: &str =
        "1a00000000000000129bd82d09000000000000f83f10032a0d0a0b0a046c6f7373150000803ed054b255";
}
