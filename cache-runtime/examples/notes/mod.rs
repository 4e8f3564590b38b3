//! What the three examples serve: notes, of which the list and each one are cached.

use std::collections::BTreeMap;
use std::sync::Arc;

use cache_runtime::{Encoded, Error, cache_defaults, cached, invalidates};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Its number.
    pub id: i64,
    /// What it says.
    pub text: String,
}

/// The notes; the map stands for a database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    rows: Arc<Mutex<BTreeMap<i64, Note>>>,
}

#[cache_defaults(resource = "notes", ttl = "5m")]
impl Notes {
    /// One note, as JSON.
    ///
    /// # Errors
    /// If it can't be encoded.
    #[cached]
    pub(crate) async fn get(&self, id: i64) -> Result<Option<Encoded<Note>>, Error> {
        let note = self.rows.lock().get(&id).cloned();
        note.as_ref().map(Encoded::new).transpose()
    }

    /// All of them.
    ///
    /// # Errors
    /// If they can't be encoded.
    #[cached(op = "list")]
    pub(crate) async fn list(&self) -> Result<Encoded<Vec<Note>>, Error> {
        let notes: Vec<Note> = self.rows.lock().values().cloned().collect();
        Encoded::new(&notes)
    }

    /// Writes one.
    #[invalidates(id = id)]
    pub(crate) async fn write(&self, id: i64, text: String) {
        self.rows.lock().insert(id, Note { id, text });
    }
}
