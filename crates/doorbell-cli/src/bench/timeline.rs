//! The memory of a process over time.

use std::time::{Duration, Instant};

use super::plot::{Axis, Curve, Plot, Quantity, Shape};
use super::process_cost::Memory;

/// What a process held whenever somebody looked.
#[derive(Debug)]
pub(crate) struct Timeline {
    process: u32,
    started: Instant,
    moments: Vec<(Duration, Memory)>,
}

impl Timeline {
    /// Begins with nothing seen yet.
    pub(crate) fn start(process: u32) -> Self {
        Self {
            process,
            started: Instant::now(),
            moments: Vec::new(),
        }
    }

    /// As [`start`](Self::start), with memory for `looks` that has been written to: a process that watches itself must not see that grow.
    pub(crate) fn with_room(process: u32, looks: usize) -> Self {
        let full = Memory {
            resident_bytes: u64::MAX,
            ..Memory::default()
        };
        let mut moments = vec![(Duration::MAX, full); looks];
        moments.clear();
        Self {
            moments,
            ..Self::start(process)
        }
    }

    /// Looks at the process and returns what it holds now.
    ///
    /// # Errors
    ///
    /// If the system does not tell, or the process is gone.
    pub(crate) fn look(&mut self) -> anyhow::Result<(Duration, Memory)> {
        let now = (self.started.elapsed(), Memory::of_process(self.process)?);
        self.moments.push(now);
        Ok(now)
    }

    /// Returns the moment at which the process held most.
    ///
    /// # Panics
    ///
    /// If nobody has looked.
    pub(crate) fn most(&self) -> (Duration, Memory) {
        let most = self.moments.iter().max_by_key(|(_, memory)| memory.all());
        *most.expect("somebody has looked")
    }

    /// Returns what was seen.
    pub(crate) fn moments(&self) -> &[(Duration, Memory)] {
        &self.moments
    }
}

/// Draws the memory of several processes over time.
pub(crate) fn plot(title: &str, timelines: &[(&str, &Timeline)]) -> Plot {
    let curve = |name: String, timeline: &Timeline, bytes: fn(&Memory) -> u64| Curve {
        name,
        is_reference: false,
        points: timeline
            .moments
            .iter()
            .map(|(at, memory)| (at.as_secs_f64(), bytes(memory) as f64))
            .collect(),
    };
    let curves = timelines.iter().flat_map(|&(name, timeline)| {
        [
            curve(format!("{name}, private"), timeline, |memory| {
                memory.private_bytes
            }),
            curve(format!("{name}, regions"), timeline, |memory| {
                memory.region_bytes
            }),
        ]
    });
    Plot {
        title: title.to_owned(),
        x: Axis::linear("time", Quantity::Seconds),
        y: Axis::linear("memory", Quantity::Bytes),
        curves: curves
            .filter(|curve| curve.points.iter().any(|point| point.1 > 0.0))
            .collect(),
        shape: Shape::Lines,
    }
}
