//! A small linter: what the engine finds in a document after each burst of edits.

use crate::demo::protocol::{Finding, FindingKind};

/// Findings in one answer; more help nobody.
const MAX_FINDINGS: usize = 200;
const MAX_LINE_CHARS: usize = 120;
const MARKERS: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Looks at a whole text.
pub(crate) fn diagnose(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut open = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index as u64 + 1;
        for kind in [style_of(line), brackets_of(line, &mut open)]
            .into_iter()
            .flatten()
        {
            findings.push(Finding {
                line: line_number,
                kind,
            });
        }
        if findings.len() >= MAX_FINDINGS {
            findings.truncate(MAX_FINDINGS);
            break;
        }
    }
    findings
}

fn style_of(line: &str) -> Option<FindingKind> {
    let indentation = &line[..line.len() - line.trim_start().len()];
    if MARKERS.iter().any(|marker| line.contains(marker)) {
        Some(FindingKind::UnfinishedWork)
    } else if line.trim_end().len() < line.len() {
        Some(FindingKind::TrailingWhitespace)
    } else if line.len() > MAX_LINE_CHARS && line.chars().count() > MAX_LINE_CHARS {
        Some(FindingKind::LongLine)
    } else if indentation.contains(" \t") {
        Some(FindingKind::MixedIndentation)
    } else {
        None
    }
}

fn brackets_of(line: &str, open: &mut Vec<u8>) -> Option<FindingKind> {
    let mut finding = None;
    for byte in line.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open.push(byte),
            b')' if open.pop() != Some(b'(') => finding = Some(FindingKind::UnmatchedBracket),
            b']' if open.pop() != Some(b'[') => finding = Some(FindingKind::UnmatchedBracket),
            b'}' if open.pop() != Some(b'{') => finding = Some(FindingKind::UnmatchedBracket),
            _ => {}
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(u64, FindingKind)> {
        diagnose(text)
            .into_iter()
            .map(|finding| (finding.line, finding.kind))
            .collect()
    }

    #[test]
    fn each_kind_is_found_on_its_line() {
        use FindingKind::{
            LongLine, MixedIndentation, TrailingWhitespace, UnfinishedWork, UnmatchedBracket,
        };
        assert_eq!(kinds("fine(1)\n"), []);
        assert_eq!(kinds("a\n// TODO later\n"), [(2, UnfinishedWork)]);
        assert_eq!(kinds("a \n"), [(1, TrailingWhitespace)]);
        assert_eq!(kinds(&"x".repeat(121)), [(1, LongLine)]);
        assert_eq!(kinds(&"ä".repeat(120)), []);
        assert_eq!(kinds(" \tx"), [(1, MixedIndentation)]);
        assert_eq!(kinds("(\n]\n"), [(2, UnmatchedBracket)]);
    }

    #[test]
    fn findings_are_bounded() {
        assert_eq!(diagnose(&"x \n".repeat(1000)).len(), MAX_FINDINGS);
    }
}
