//! Documents in a directory: `NAME.json`, a line that says what follows, then the content as one line of JSON.
//!
//! ```text
//! {"format":1,"document":"frozen","bytes":1234,"checksum":"0f…"}
//! [{"root":…
//! ```
//!
//! A document is written whole or not at all: beside its place first, brought to the disk, then renamed.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// Version of the form. A document of another version is not read.
const FORMAT: u32 = 1;

/// The file that the process which has the directory holds a lock on.
const LOCK: &str = "lock";

/// Longest document, in bytes; the routes of a large mesh take a tenth of it.
const MAX_BYTES: u64 = 1 << 30;

/// What the first line has in every version.
#[derive(Deserialize)]
struct Form {
    format: u32,
}

/// The first line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    format: u32,
    document: String,
    bytes: u64,
    /// 128-bit XXH3 of the content's bytes, in hexadecimal digits: against torn files, not against forgers.
    checksum: String,
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is longer than any document that is written.
    #[error("it has {0} bytes, which is more than is ever kept")]
    TooLong(u64),
    /// It does not begin as a document does.
    #[error("it is not a document of Chancery: {0}")]
    Header(String),
    /// Another version of the form.
    #[error("it has format {0}, and this version of Chancery reads format {FORMAT}")]
    Format(u32),
    /// The document of another name.
    #[error("it holds the document {0:?}")]
    Other(String),
    /// The content is not what was written.
    #[error("its checksum is wrong, so it is torn or was changed")]
    Torn,
    /// The content is not what it should be, though it is what was written.
    #[error("its content is not understood: {0}")]
    Content(String),
}

/// Another process has the state directory.
#[derive(Debug, thiserror::Error)]
#[error("the state directory {0} is in use by another process: end that one, or give each its own with --state")]
pub struct Taken(String);

impl ReadError {
    /// Whether what is there is damaged, so that it is of no use to anybody. What the system does not give, or is another
    /// document, or that of a newer version, may be whole.
    fn is_damage(&self) -> bool {
        match self {
            Self::Header(_) | Self::Torn | Self::Content(_) => true,
            Self::Io(_) | Self::TooLong(_) | Self::Format(_) | Self::Other(_) => false,
        }
    }
}

/// A directory of documents.
#[derive(Clone, Debug)]
pub struct Documents {
    directory: PathBuf,
    /// Documents that are there and were not read: they are not written either.
    unread: BTreeSet<String>,
}

impl Documents {
    /// The documents of a directory, which is created, for its owner only, if it is missing.
    ///
    /// A directory that cannot be created is logged; nothing is found there, and saving fails.
    #[must_use]
    pub fn open(directory: &Path) -> Self {
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(directory) {
            tracing::error!(directory = %directory.display(), "the state directory cannot be used, so nothing is kept over a restart: {error}");
        }
        Self { directory: directory.to_owned(), unread: BTreeSet::new() }
    }

    /// Takes the directory for this process, until the file is closed, which the end of the process does too.
    ///
    /// # Errors
    /// Another process has it. That nothing can be locked there is logged, and is no error: serving does not depend on it.
    pub fn lock(&self) -> Result<Option<File>, Taken> {
        let path = self.directory.join(LOCK);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let locked = opened.map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file));
        match locked {
            Ok(file) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(Taken(self.directory.display().to_string())),
            Err(TryLockError::Error(error)) => {
                tracing::error!(file = %path.display(), "the state directory cannot be locked, so nothing keeps another process from writing there: {error}");
                Ok(None)
            }
        }
    }

    /// Where a document is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// Reads a document, and says in the log why it does not.
    ///
    /// A damaged one is put aside under the ending `.bad`, beside those that were put aside before. Any other that cannot be
    /// read is left as it is, and [`save`](Self::save) leaves it too: what is there may be whole.
    #[must_use]
    pub fn load<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let path = self.path(name);
        let error = match read(&path, name) {
            Ok(found) => {
                self.unread.remove(name);
                return found;
            }
            Err(error) => error,
        };
        let aside = if error.is_damage() { free_name(&path) } else { Err(None) };
        match aside.and_then(|aside| std::fs::rename(&path, &aside).map(|()| aside).map_err(Some)) {
            Ok(aside) => {
                tracing::error!(file = %path.display(), aside = %aside.display(), "a state file is not used and was put aside: {error}");
            }
            Err(None) => {
                self.unread.insert(name.to_owned());
                tracing::error!(file = %path.display(), "a state file is not used; it is left as it is, and nothing is kept in its place until a restart can read it: {error}");
            }
            Err(Some(reason)) => {
                self.unread.insert(name.to_owned());
                tracing::error!(file = %path.display(), "a state file is not used: {error}; nor can it be put aside: {reason}");
            }
        }
        None
    }

    /// Writes a document, whole or not at all, readable for its owner only.
    ///
    /// # Errors
    /// The system's, or that the document is too long, or that what is there was not read. What was there before is still there.
    ///
    /// # Cost
    /// In proportion to the content; waits for the disk.
    pub fn save<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> std::io::Result<()> {
        if self.unread.contains(name) {
            return Err(std::io::Error::other("what is there could not be read, and is left as it is"));
        }
        let content = serde_json::to_vec(value)?;
        let bytes = content.len() as u64;
        if bytes > MAX_BYTES {
            let message = format!("the document has {bytes} bytes, and {MAX_BYTES} are kept at most");
            return Err(std::io::Error::new(ErrorKind::FileTooLarge, message));
        }
        let checksum = format!("{:032x}", xxh3_128(&content));
        let header = Header { format: FORMAT, document: name.to_owned(), bytes, checksum };
        let path = self.path(name);
        let beside = path.with_extension("json.tmp");
        // What a crash left there.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let written = serde_json::to_vec(&header).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            file.write_all(&line)?;
            file.write_all(&content)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)
        });
        if let Err(error) = written {
            // Half a file helps nobody, least of all on a full disk. The next save removes it if this does not.
            let _ = std::fs::remove_file(&beside);
            return Err(error);
        }
        // The rename itself.
        File::open(&self.directory)?.sync_all()
    }
}

/// A name for a damaged document that nothing has.
///
/// # Errors
/// The system does not say whether something has it.
fn free_name(path: &Path) -> Result<PathBuf, Option<std::io::Error>> {
    let mut name = path.with_extension("json.bad");
    let mut number = 1_u64;
    loop {
        match std::fs::symlink_metadata(&name) {
            Ok(_) => number += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(name),
            Err(error) => return Err(Some(error)),
        }
        name = path.with_extension(format!("json.bad-{number}"));
    }
}

/// A document; `None` where there is no file.
fn read<T: DeserializeOwned>(path: &Path, name: &str) -> Result<Option<T>, ReadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        // Nothing can be in a directory that is none.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    // The header has some hundred bytes.
    let limit = MAX_BYTES + 4096;
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(ReadError::TooLong(text.len() as u64));
    }
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let form: Form = serde_json::from_slice(&text[..end]).map_err(|error| ReadError::Header(error.to_string()))?;
    if form.format != FORMAT {
        return Err(ReadError::Format(form.format));
    }
    let header: Header = serde_json::from_slice(&text[..end]).map_err(|error| ReadError::Header(error.to_string()))?;
    if header.document != name {
        return Err(ReadError::Other(header.document));
    }
    let content = text.get(end + 1..).unwrap_or_default();
    if content.len() as u64 != header.bytes || format!("{:032x}", xxh3_128(content)) != header.checksum {
        return Err(ReadError::Torn);
    }
    serde_json::from_slice(content).map(Some).map_err(|error| ReadError::Content(error.to_string()))
}
