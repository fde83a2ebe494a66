//! Reading and decoding files, many at a time.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_128;

use super::path::RelPath;
use super::scan::{KEPT, Root, Signature, reason, trouble};
use crate::crd::yaml::{self, Decoded};
use crate::model::{Code, Finding, Name};

/// A file to be read.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Its place in path order.
    pub(super) key: RelPath,
    /// Where it is.
    pub(super) path: Arc<Path>,
    /// What messages call it.
    pub(super) label: Arc<str>,
    /// The cluster of its objects.
    pub(super) cluster: Name,
    /// What messages call the folder of its cluster, if it lies in one.
    pub(super) folder: Option<Arc<str>>,
    /// Its state as it was listed.
    pub(super) signature: Signature,
    /// The hash of the content that was decoded last, which need not be decoded again.
    pub(super) known: Option<u128>,
}

impl Job {
    /// The job of reading a file that was listed. The file before it in path order mostly lies in the same folder, and
    /// then both share the names of the cluster: a large directory has many files and few clusters.
    pub(super) fn new(root: &Root, rel: &RelPath, key: RelPath, signature: Signature, before: Option<&Self>) -> Self {
        let folder = rel.first_folder().map(|name| root.label(&RelPath::new(name)));
        let cluster = root.cluster(rel);
        let (folder, cluster) = match before.filter(|before| before.folder == folder && before.cluster == cluster) {
            Some(before) => (before.folder.clone(), before.cluster.clone()),
            None => (folder, cluster),
        };
        Self { key, path: Arc::from(root.path(rel)), label: root.label(rel), cluster, folder, signature, known: None }
    }
}

/// What became of reading a file.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was read.
    Read(Content),
    /// It is not readable or too large.
    Refused(Finding),
    /// It changed meanwhile, or is gone; it has to be looked at again.
    Moving,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Content {
    /// Its state; none if it was written so recently that a further write may not show in it.
    pub(super) signature: Option<Signature>,
    /// The hash of its bytes.
    pub(super) hash: u128,
    /// Size in bytes.
    pub(super) len: u64,
    /// Its objects.
    pub(super) decoding: Decoding,
}

/// What is in a file.
#[derive(Debug)]
pub(super) enum Decoding {
    /// The same as last time.
    Same,
    /// Objects.
    Done(Decoded),
    /// Nothing readable.
    Failed(Finding),
}

/// Reads and decodes files. The outcomes stand in the order of the jobs, whatever the threads did.
///
/// # Cost
/// As many threads as there are cores, none for a few files. Each holds one file in memory.
pub(super) fn load(jobs: &[Job], limits: &yaml::Limits) -> Vec<Outcome> {
    /// Below this number of files a thread costs more than it saves.
    const FILES_PER_THREAD: usize = 16;
    let wanted = jobs.len().div_ceil(FILES_PER_THREAD);
    // Counting the cores reads files, which takes longer than reading one of ours.
    let threads = if wanted > 1 { std::thread::available_parallelism().map_or(1, usize::from).min(wanted) } else { 1 };
    if threads == 1 {
        return jobs.iter().map(|job| load_one(job, limits)).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut outcomes = Vec::new();
        while let Some((index, job)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, jobs.get(i)?)))
        {
            outcomes.push((index, load_one(job, limits)));
        }
        outcomes
    };
    let mut outcomes: Vec<(usize, Outcome)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("decoding catches its own panics")).collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn load_one(job: &Job, limits: &yaml::Limits) -> Outcome {
    let most = limits.file_bytes as u64;
    if job.signature.len > most {
        return Outcome::Refused(too_large(job, Some(job.signature.len), most));
    }
    let (bytes, before, after) = match read(&job.path, most) {
        Ok(read) => read,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Outcome::Moving,
        Err(error) => {
            let message = format!("the file cannot be read ({}); {KEPT}", reason(&error));
            return Outcome::Refused(trouble(job.label.clone(), Code::SyntaxError, message));
        }
    };
    if before != after || before != job.signature || bytes.len() as u64 != after.len {
        return Outcome::Moving;
    }
    let hash = xxh3_128(&bytes);
    let decoding = if job.known == Some(hash) { Decoding::Same } else { decode(&bytes, job, limits) };
    let signature = is_settled(&after).then_some(after);
    Outcome::Read(Content { signature, hash, len: after.len, decoding })
}

/// The bytes of a regular file, with its state before and after reading.
fn read(path: &Path, most: u64) -> io::Result<(Vec<u8>, Signature, Signature)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let before = Signature::of(&metadata);
    let mut bytes = Vec::with_capacity(usize::try_from(before.len.min(most)).unwrap_or(0));
    (&file).take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes, before, Signature::of(&file.metadata()?)))
}

/// Whether any later write will show in the signature: file systems count time in ticks of some milliseconds, and two
/// writes of equal length within one tick look the same.
fn is_settled(signature: &Signature) -> bool {
    /// Longer than the tick of any file system in use but FAT, which counts in 2 s.
    const TICK_SECONDS: f64 = 0.1;
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |now| now.as_secs_f64());
    signature.youngest() + TICK_SECONDS < now
}

/// Decodes a file. A defect of the decoder spoils one file, not the source.
pub(super) fn decode(bytes: &[u8], job: &Job, limits: &yaml::Limits) -> Decoding {
    let source = yaml::Source {
        file: job.label.clone(),
        cluster: job.cluster.clone(),
        default_namespace: Name::from("default"),
    };
    let decoding = || match yaml::decode(bytes, &source, limits) {
        Ok(decoded) => Decoding::Done(decoded),
        Err(finding) => Decoding::Failed(finding),
    };
    match catch_unwind(AssertUnwindSafe(decoding)) {
        Ok(decoding) => decoding,
        Err(_) => {
            tracing::error!(file = %job.label, "decoding a file panicked");
            let message = format!("Chancery failed on this file, which is a bug; please report it; {KEPT}");
            Decoding::Failed(trouble(job.label.clone(), Code::SyntaxError, message))
        }
    }
}

/// The finding about a file beyond the limit of size. The size of a stream is not known: it was not read to its end.
pub(super) fn too_large(job: &Job, size: Option<u64>, most: u64) -> Finding {
    let size = size.map(|size| format!("{size} bytes, ")).unwrap_or_default();
    let message =
        format!("the file has {size}more than the limit of {most} bytes per file, and is not read; split it; {KEPT}");
    trouble(job.label.clone(), Code::LimitExceeded, message)
}
