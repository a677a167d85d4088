//! What is fed: the text files below the paths named, in a fixed order, and standard input.

use std::io;
use std::path::{Path, PathBuf};

use klamm::Error;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};

/// Bytes read from a file at once.
const READ_BYTES: usize = 256 * 1024;
/// A longer line is fed in pieces, cut between words: a record must fit into a request.
const PIECE_BYTES: usize = 256 * 1024;
/// A file with a zero byte among its first ones is not text.
const PROBE_BYTES: usize = 8 * 1024;

/// The inputs of one run.
#[derive(Debug)]
pub struct Inputs {
    /// Names the same inputs the same way in every run, so that an interrupted run is recognised.
    pub name: String,
    pub files: Vec<Input>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    File { path: PathBuf, bytes: u64 },
    Stdin,
}

impl Inputs {
    /// Finds the text files at and below `paths`: those of a folder by name, without hidden ones, `target`
    /// and what lies below `skip`.
    pub async fn find(paths: &[PathBuf], skip: &Path) -> Result<Self, Error> {
        let mut names = Vec::new();
        let mut files = Vec::new();
        for path in paths {
            if path.as_os_str() == "-" {
                names.push("-".to_owned());
                files.push(Input::Stdin);
                continue;
            }
            let whole = tokio::fs::canonicalize(path).await.map_err(|error| unreadable(path, &error))?;
            collect(&whole, skip, &mut files).await.map_err(|error| unreadable(path, &error))?;
            names.push(whole.display().to_string());
        }
        Ok(Self { name: names.join("\n"), files })
    }

    /// Bytes of all files; `None` with standard input, which does not tell.
    pub fn bytes(&self) -> Option<u64> {
        self.files.iter().map(Input::bytes).sum()
    }

    /// Whether a second run can read the same again.
    pub fn can_be_read_again(&self) -> bool {
        !self.files.contains(&Input::Stdin)
    }
}

impl Input {
    pub fn name(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
        }
    }

    fn bytes(&self) -> Option<u64> {
        match self {
            Self::File { bytes, .. } => Some(*bytes),
            Self::Stdin => None,
        }
    }

    /// Its lines from `offset_bytes` on, which is where a line begins.
    pub async fn lines(&self, offset_bytes: u64) -> io::Result<Lines> {
        let reader: Box<dyn AsyncBufRead + Send + Unpin> = match self {
            Self::Stdin => Box::new(BufReader::with_capacity(READ_BYTES, tokio::io::stdin())),
            Self::File { path, .. } => {
                let mut file = tokio::fs::File::open(path).await?;
                file.seek(io::SeekFrom::Start(offset_bytes)).await?;
                Box::new(BufReader::with_capacity(READ_BYTES, file))
            }
        };
        Ok(Lines { reader, begun: Vec::new() })
    }
}

async fn collect(path: &Path, skip: &Path, files: &mut Vec<Input>) -> io::Result<()> {
    // A stack instead of recursion; folders are taken last in, first out, so their entries go on it in reverse order.
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        // Links are not followed: they may lead in circles.
        let metadata = tokio::fs::symlink_metadata(&path).await?;
        if metadata.is_dir() && path != skip {
            let mut entries = Vec::new();
            let mut folder = tokio::fs::read_dir(&path).await?;
            while let Some(entry) = folder.next_entry().await? {
                let name = entry.file_name();
                if !name.to_string_lossy().starts_with('.') && name != "target" {
                    entries.push(entry.path());
                }
            }
            entries.sort();
            waiting.extend(entries.into_iter().rev());
        } else if metadata.is_file() && is_text(&path).await? {
            files.push(Input::File { path, bytes: metadata.len() });
        }
    }
    Ok(())
}

async fn is_text(path: &Path) -> io::Result<bool> {
    let mut probe = Vec::with_capacity(PROBE_BYTES);
    tokio::fs::File::open(path).await?.take(PROBE_BYTES as u64).read_to_end(&mut probe).await?;
    Ok(!probe.contains(&0))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::msg(format!("cannot read {}: {error}", path.display()))
}

/// The lines of one input.
pub struct Lines {
    reader: Box<dyn AsyncBufRead + Send + Unpin>,
    /// What was read beyond the last piece of a long line.
    begun: Vec<u8>,
}

/// A line, or a piece of a long one.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Without the line's end. Bytes that are no UTF-8 are replaced, which separates words as they would.
    pub text: String,
    /// Bytes of the input that it stands for.
    pub bytes: u64,
}

impl Lines {
    /// The next line; `None` after the last.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        let mut piece = std::mem::take(&mut self.begun);
        let room = PIECE_BYTES - piece.len();
        (&mut self.reader).take(room as u64).read_until(b'\n', &mut piece).await?;
        if piece.is_empty() {
            return Ok(None);
        }
        if piece.len() == PIECE_BYTES && piece.last() != Some(&b'\n') {
            let end = last_word_end(&piece)
                .ok_or_else(|| io::Error::other("it has a word of more than 256 KiB"))?;
            self.begun = piece.split_off(end);
        }
        let bytes = piece.len() as u64;
        if piece.last() == Some(&b'\n') {
            piece.pop();
        }
        let text = String::from_utf8(piece)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Ok(Some(Line { text, bytes }))
    }
}

/// The end of the last character that separates words: what follows may be the beginning of a
/// longer word, or of a character.
fn last_word_end(piece: &[u8]) -> Option<usize> {
    let mut end = None;
    let mut at = 0;
    for chunk in piece.utf8_chunks() {
        if let Some((place, character)) =
            chunk.valid().char_indices().rfind(|(_, character)| !character.is_alphanumeric())
        {
            end = Some(at + place + character.len_utf8());
        }
        at += chunk.valid().len() + chunk.invalid().len();
        if !chunk.invalid().is_empty() && at < piece.len() {
            end = Some(at);
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &'static [u8]) -> Vec<Line> {
        let mut lines = Lines { reader: Box::new(bytes), begun: Vec::new() };
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_know_how_many_bytes_they_stand_for() {
        let line = |text: &str, bytes| Line { text: text.to_owned(), bytes };
        assert_eq!(lines(b"a b\n\nlast").await, [line("a b", 4), line("", 1), line("last", 4)]);
        assert_eq!(lines(b"x\xffy\n").await, [line("x\u{fffd}y", 4)]);
        assert_eq!(lines(b"").await, []);
    }

    #[tokio::test]
    async fn long_lines_are_cut_between_words() {
        // A word that lies across the cut, of characters that are cut in the middle.
        let text = format!("{} {} end\n", "a ".repeat(PIECE_BYTES / 2 - 10), "ä".repeat(50));
        let whole: &'static [u8] = text.clone().leak().as_bytes();
        let pieces = lines(whole).await;
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces.iter().map(|piece| piece.bytes).sum::<u64>(), text.len() as u64);
        let joined: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(joined, text.trim_end_matches('\n'));
        assert!(pieces[1].text.starts_with("ää"));
    }

    #[test]
    fn words_end_at_separators_only() {
        assert_eq!(last_word_end("ab cd".as_bytes()), Some(3));
        assert_eq!(last_word_end("ab，cd".as_bytes()), Some(5));
        assert_eq!(last_word_end(b"ab\xffcd"), Some(3));
        assert_eq!(last_word_end(b"abcd\xe4"), None, "perhaps the first byte of a letter");
        assert_eq!(last_word_end(b"abcd"), None);
    }
}
