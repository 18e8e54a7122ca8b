//! The rules of accessibility, as axe-core knows them.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::process::workspace;
use super::Browser;

/// Which of its rules: WCAG to level AA, and what experience adds.
const RULES: &str = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']";

impl Browser {
    /// Fails if the page, as it is now, breaks a rule. `state` says what is being looked at.
    ///
    /// # Errors
    /// It breaks one; the text names the rule, the elements and why.
    pub(crate) async fn axe(&self, state: &str) -> Result<()> {
        if self.script("return typeof window.axe").await? == "undefined" {
            let path = workspace().join("tests/page/node_modules/axe-core/axe.min.js");
            let source = std::fs::read_to_string(path);
            let source = source.context("axe-core is not installed: run scripts/setup")?;
            // By the debugger, which no policy of the page binds: what is judged is the page as it
            // is served, and nothing of its policy is switched off.
            let load = json!({ "expression": format!("{source};0") });
            self.devtools("Runtime.evaluate", load).await?;
        }
        let run = format!(
            "axe.run(document, {{ runOnly: {RULES}, resultTypes: ['violations'] }}).then(found => \
             found.violations.map(rule => rule.id + ': ' + rule.help + \
             rule.nodes.map(node => '\\n    ' + node.target.join(' ') + ': ' + \
             node.failureSummary.replaceAll('\\n', ' ')).join('')))"
        );
        let run = json!({ "expression": run, "awaitPromise": true, "returnByValue": true });
        let reply = self.devtools("Runtime.evaluate", run).await?;
        let found = reply["result"]["value"].as_array();
        let found = found.with_context(|| format!("axe did not run: {reply}"))?;
        let found: Vec<_> = found.iter().filter_map(Value::as_str).collect();
        ensure!(found.is_empty(), "axe, {state}:\n{}", found.join("\n"));
        Ok(())
    }
}
