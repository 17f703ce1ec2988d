//! Conformance vectors: where they are, which files of them were opened, how many cases held.
//!
//! The vectors are not part of the repository. `KEDGE_VECTORS` names their folder, `../shared/vectors`
//! beside the checkout is the default; a test of a part that is not there says so and passes.
//!
//! A test takes a part with [`Vectors::find`], runs its files and ends with [`Vectors::finish`], which
//! fails when a case failed or a file of the part was opened by nobody. With `KEDGE_VECTORS_LEDGER` set to a
//! folder it also writes there what was opened and counted, from which `make conformance` tells what
//! nothing opened at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// One part of the vectors, which remembers what was opened of it.
#[derive(Debug)]
pub struct Vectors {
    root: PathBuf,
    part: &'static str,
    unused: &'static [(&'static str, &'static str)],
    opened: Mutex<BTreeSet<String>>,
}

impl Vectors {
    /// The part in the folder `part`, when it is there. `unused` names files that say nothing about Kedge,
    /// by the beginning of their path in the part, each with the reason.
    pub fn find(
        part: &'static str,
        unused: &'static [(&'static str, &'static str)],
    ) -> Option<Self> {
        let root = std::env::var_os("KEDGE_VECTORS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
            PathBuf::from,
        );
        if root.join(part).is_dir() {
            return Some(Self { root, part, unused, opened: Mutex::default() });
        }
        println!("skipped: no {part} in {} (set KEDGE_VECTORS)", root.display());
        None
    }

    /// Whether nothing but vectors is run, so that a case may take a minute.
    pub fn alone(&self) -> bool {
        std::env::var_os("KEDGE_VECTORS_LEDGER").is_some()
    }

    /// Every file of the part that is to be used: paths in the part, in order. Prose (`*.md`) is none.
    ///
    /// # Panics
    /// When a folder cannot be read or a name is not UTF-8.
    pub fn files(&self) -> Vec<String> {
        let mut files = self.all();
        files.retain(|file| self.excuse(file).is_none());
        files
    }

    fn all(&self) -> Vec<String> {
        let base = self.root.join(self.part);
        let mut folders = vec![base.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a readable folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_none_or(|extension| extension != "md") {
                    let file = path.strip_prefix(&base).expect("a path below the part");
                    files.push(file.to_str().expect("a name in UTF-8").to_owned());
                }
            }
        }
        files.sort();
        files
    }

    fn excuse(&self, file: &str) -> Option<&'static str> {
        self.unused.iter().find(|(prefix, _)| file.starts_with(prefix)).map(|(_, reason)| *reason)
    }

    /// Where `file` is. It counts as opened.
    pub fn open(&self, file: &str) -> PathBuf {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned());
        self.root.join(self.part).join(file)
    }

    /// What is in `file`.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.open(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Runs `test` on every file of [`Self::files`], on all processors, and adds up what they counted.
    ///
    /// # Panics
    /// When `test` does.
    pub fn run(&self, test: impl Fn(&str, &mut Tally) + Sync) -> Tally {
        let files = self.files();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut tally = Tally::default();
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                test(file, &mut tally);
            }
            tally
        };
        let mut total = Tally::default();
        thread::scope(|scope| {
            let threads = thread::available_parallelism().map_or(1, NonZero::get);
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                match worker.join() {
                    Ok(tally) => total.add(tally),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        total
    }

    /// Prints the counts and ends the test.
    ///
    /// # Panics
    /// When a case failed, none ran, a file was opened by nobody, or the list of unused files names one that
    /// is not there.
    pub fn finish(self, tally: Tally) {
        let opened = self.opened.into_inner().unwrap_or_else(PoisonError::into_inner);
        let this = Self { opened: Mutex::default(), ..self };
        let all = this.all();
        let summary = format!("{}: {} files, {tally}", this.part, opened.len());
        println!("{summary}");
        if let Some(ledger) = std::env::var_os("KEDGE_VECTORS_LEDGER") {
            let excused = all.iter().filter(|file| this.excuse(file).is_some());
            let mut text = summary.clone();
            for file in opened.iter().chain(excused) {
                text.push_str(&format!("\n{}/{file}", this.part));
            }
            let ledger = Path::new(&ledger).join(this.part.replace('/', "-"));
            fs::write(&ledger, text + "\n")
                .unwrap_or_else(|error| panic!("{}: {error}", ledger.display()));
        }

        let mut wrong = tally.failed;
        wrong.extend(
            all.iter()
                .filter(|file| !opened.contains(*file) && this.excuse(file).is_none())
                .map(|file| format!("{file}: opened by nothing")),
        );
        wrong.extend(
            this.unused
                .iter()
                .filter(|(prefix, _)| !all.iter().any(|file| file.starts_with(prefix)))
                .map(|(prefix, _)| format!("{prefix}: named as unused, but there is none")),
        );
        if tally.passed == 0 {
            wrong.push("no case ran".to_owned());
        }
        assert!(wrong.is_empty(), "{summary}\n{}", wrong.join("\n"));
    }
}

/// What became of cases.
#[derive(Debug, Default)]
pub struct Tally {
    passed: u64,
    excepted: BTreeMap<&'static str, u64>,
    failed: Vec<String>,
}

impl Tally {
    /// Counts a case: `outcome` is what went wrong with it, if anything. A case with an `exception`, the
    /// reason why it cannot hold, has to go wrong, so that no exception outlives its reason.
    pub fn case(
        &mut self,
        name: impl FnOnce() -> String,
        exception: Option<&'static str>,
        outcome: Result<(), String>,
    ) {
        match (exception, outcome) {
            (None, Ok(())) => self.passed += 1,
            (None, Err(wrong)) => self.failed.push(format!("{}: {wrong}", name())),
            (Some(reason), Err(_)) => self.except(reason),
            (Some(reason), Ok(())) => {
                self.failed.push(format!("{}: holds, but is excepted: {reason}", name()));
            }
        }
    }

    /// Counts a case that is not run, with the reason.
    pub fn except(&mut self, reason: &'static str) {
        *self.excepted.entry(reason).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        for (reason, count) in other.excepted {
            *self.excepted.entry(reason).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let excepted: u64 = self.excepted.values().sum();
        write!(f, "{} passed, {} failed, {excepted} excepted", self.passed, self.failed.len())?;
        for (reason, count) in &self.excepted {
            write!(f, "; {count}: {reason}")?;
        }
        Ok(())
    }
}
