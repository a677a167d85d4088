//! The document of an app: before it starts, of what runs, and instead of a run.

use std::io::{self, Write};
use std::sync::Arc;

use super::{App, AppHandle, Prepared, RunError, StartError};
use crate::asyncapi::{AsyncApi, Info, JsonSchema};

/// The variable of the environment that asks for the document instead of a run.
const ASKED_FOR: &str = "KLAMM_ASYNCAPI";

impl App {
    /// What the app is called, and which version of it this is, in its [document](crate::asyncapi).
    pub fn info(mut self, title: impl Into<Arc<str>>, version: impl Into<Arc<str>>) -> Self {
        self.described.info = Info { title: title.into(), version: version.into() };
        self
    }

    /// Takes the JSON Schema of a type into the app's [document](crate::asyncapi), where no macro has seen the type: a
    /// listener made by [`Listener::on`](crate::listener::Listener::on), a template of `Json<T>`.
    pub fn schema<T: JsonSchema + 'static>(mut self) -> Self {
        self.described.schemas.add::<T>();
        self
    }

    /// The document of what the app reads and writes; asks no broker.
    ///
    /// # Errors
    /// What would keep the app from starting: a placeholder without a value, parts that do not fit together.
    pub async fn asyncapi(self) -> Result<AsyncApi, StartError> {
        let Prepared { listeners, rules, described, .. } = self.prepare().await?;
        Ok(described.document(&listeners, &rules.templates))
    }

    /// Prints the document if that is asked for; gives the app back otherwise.
    pub(super) async fn or_document(self) -> Result<Option<Self>, RunError> {
        let Ok(form) = std::env::var(ASKED_FOR) else { return Ok(Some(self)) };
        let text = match form.as_str() {
            "json" => format!("{}\n", self.asyncapi().await?),
            "html" => self.asyncapi().await?.page(),
            other => {
                let said = format!("{ASKED_FOR} is `json` or `html`, and not `{other}`");
                return Err(RunError::Document(io::Error::new(io::ErrorKind::InvalidInput, said)));
            }
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(RunError::Document)?;
        Ok(None)
    }
}

impl AppHandle {
    /// The document of what the app reads and writes, with the listeners that it has now.
    pub fn asyncapi(&self) -> AsyncApi {
        self.running().asyncapi()
    }
}
