//! Work that its caller may stop.

use relugrad::{Error, GoOn};

/// Ends work that is not to go on.
pub(crate) fn ask(go_on: GoOn) -> relugrad::Result<()> {
    match go_on() {
        true => Ok(()),
        false => Err(Error::Stopped),
    }
}

/// What work has found, or nothing if it was stopped.
pub(crate) fn unless_stopped<V>(found: relugrad::Result<V>) -> relugrad::Result<Option<V>> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(Error::Stopped) => Ok(None),
        Err(error) => Err(error),
    }
}
