"""The ground: run folder, tables, settings, rules, safe access, jobs, protocol. No model, no server, no widget."""
