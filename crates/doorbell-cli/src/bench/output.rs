//! Where figures go: JSON lines or tables on standard output, and a page.

use std::io::{self, Write};

use serde_json::Value;

use super::options::Common;
use super::plot::Plot;
use super::report;
use super::table::Sheet;

/// Takes what benchmarks have found.
pub(crate) struct Output {
    common: Common,
    sections: Vec<Section>,
}

/// What one benchmark has found.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) bench: &'static str,
    /// What it measures, and beside what.
    pub(crate) about: &'static str,
    pub(crate) sheets: Vec<Sheet>,
    pub(crate) plots: Vec<Plot>,
}

impl Output {
    /// Makes an output as the user wants it.
    ///
    /// # Errors
    ///
    /// If the report cannot be written: better now than after an hour.
    pub(crate) fn new(common: &Common) -> anyhow::Result<Self> {
        if let Some(path) = &common.report {
            report::check(path)?;
        }
        Ok(Self {
            common: common.clone(),
            sections: Vec::new(),
        })
    }

    /// Prints rows as JSON, if that is wanted.
    ///
    /// # Errors
    ///
    /// If standard output is gone.
    pub(crate) fn json(&self, rows: impl IntoIterator<Item = Value>) -> io::Result<()> {
        if !self.common.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        for row in rows {
            writeln!(out, "{row}")?;
        }
        out.flush()
    }

    /// Prints the tables of a benchmark, unless JSON is wanted, and keeps all of it for the report.
    ///
    /// # Errors
    ///
    /// If standard output is gone.
    pub(crate) fn section(&mut self, section: Section) -> io::Result<()> {
        if !self.common.json {
            let mut out = io::stdout().lock();
            for sheet in &section.sheets {
                writeln!(out, "{sheet}")?;
            }
        }
        self.sections.push(section);
        Ok(())
    }

    /// Writes the report, if one is wanted.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        match &self.common.report {
            Some(path) => report::write(path, &self.sections, self.common.quick),
            None => Ok(()),
        }
    }
}
