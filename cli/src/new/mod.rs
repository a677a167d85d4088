//! `klamm new`: a service that compiles, runs and has a test, to begin with.
//!
//! ```text
//! name.rs     what a crate may be called   (pure)
//! *.in        the files, with @NAME@ and @KLAMM@ where the user's come
//! ```

// The folder is of the user's choosing; there is no data here that the disk seam would stand for.
#![allow(clippy::disallowed_methods)]

mod name;

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::error::CliError;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// Folder to make; its last part is the name of the crate
    folder: PathBuf,
    /// Depend on this checkout of Klamm instead of the published crate
    #[arg(long, value_name = "DIR")]
    checkout: Option<PathBuf>,
}

/// Where each file goes, and what is in it.
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("Cargo.toml.in")),
    ("src/main.rs", include_str!("main.rs.in")),
    ("src/tests.rs", include_str!("tests.rs.in")),
    ("README.md", include_str!("README.md.in")),
    (".gitignore", include_str!("gitignore.in")),
];

pub(crate) fn run(args: &NewArgs) -> Result<(), CliError> {
    let name = args.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name::check(name).map_err(CliError::usage)?;
    let klamm = source(args.checkout.as_deref())?;
    make(&args.folder, name, &klamm)
        .map_err(|error| CliError::failed(format!("{}: {error}", args.folder.display())))?;
    output::line(&told(&args.folder, name))
}

/// How a Cargo.toml names Klamm.
fn source(checkout: Option<&Path>) -> Result<String, CliError> {
    let Some(checkout) = checkout else { return Ok(format!("version = \"{}\"", env!("CARGO_PKG_VERSION"))) };
    let framework = checkout.join("framework");
    if !framework.join("Cargo.toml").is_file() {
        return Err(CliError::usage(format!("{} is no checkout of Klamm", checkout.display())));
    }
    // The new crate may lie anywhere.
    let path = framework.canonicalize().map_err(|error| CliError::failed(format!("{error}")))?;
    // A string of JSON is one of TOML.
    Ok(format!("path = {}", Value::from(path.display().to_string())))
}

/// Makes the folder, which must be new or empty.
fn make(folder: &Path, name: &str, klamm: &str) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    if std::fs::read_dir(folder)?.next().is_some() {
        return Err(io::Error::other("there is something in it already"));
    }
    for (path, text) in FILES {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, text.replace("@NAME@", name).replace("@KLAMM@", klamm))?;
    }
    Ok(())
}

fn told(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    format!(
        "{folder} is there: {name} listens on the topic orders, and has tests.\n\
         \n\
         \x20 cd {folder}\n\
         \x20 cargo test                      # needs no broker\n\
         \x20 klamm broker --data-dir data    # in a terminal of its own\n\
         \x20 cargo run\n\
         \x20 echo '{{\"id\":1,\"cents\":250}}' | klamm produce orders"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_templates_is_left() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), "shop", "version = \"0.1.0\"").unwrap();
        for (path, _) in FILES {
            let text = std::fs::read_to_string(folder.path().join(path)).unwrap();
            assert!(!text.contains('@'), "{path}: {text}");
        }
        let main = std::fs::read_to_string(folder.path().join("src/main.rs")).unwrap();
        assert!(main.contains("group = \"shop\"") && main.contains("KLAMM_BOOTSTRAP"), "{main}");
    }

    #[test]
    fn a_checkout_may_lie_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let checkout = folder.path().join("a \"quoted\"\u{1} one");
        assert!(source(Some(&checkout)).is_err());
        std::fs::create_dir_all(checkout.join("framework")).unwrap();
        std::fs::write(checkout.join("framework/Cargo.toml"), "").unwrap();
        let named = source(Some(&checkout)).unwrap();
        assert!(named.contains(r#"a \"quoted\"\u0001 one/framework""#), "{named}");
    }

    #[test]
    fn what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("notes"), "mine").unwrap();
        let error = make(folder.path(), "shop", "").unwrap_err();
        assert_eq!(error.to_string(), "there is something in it already");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
