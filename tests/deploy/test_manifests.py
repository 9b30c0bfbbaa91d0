"""The manifests of deploy/: core kinds against Kubernetes' schemas (PyPI's kubernetes-validate), and what binds them to the binary: every
flag that they give is one of `capstan serve`, every path that they probe is a route, times to end fit together. KServe's own kinds
were held against its CRDs once: docs/KUBERNETES.md."""
import os
import pathlib
import re
import subprocess
import unittest

import kubernetes_validate
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
ROUTES = (DEPLOY.parent / "server/routes.def").read_text()


def documents():
    for path in sorted(DEPLOY.rglob("*.yaml")):
        for d in yaml.safe_load_all(path.read_text()):
            yield path.relative_to(DEPLOY), d


def containers():
    for path, d in documents():
        spec = d["spec"]
        for c in spec.get("containers", []) + ([spec["container"]] if "container" in spec else []):
            yield path, spec, c


class Manifests(unittest.TestCase):
    def test_core_kinds(self):
        kinds = set()
        for path, d in documents():
            if not d["apiVersion"].startswith("serving.kserve.io"):
                kubernetes_validate.validate(d, "1.34", strict=True)
                kinds.add(d["kind"])
            self.assertTrue(d["metadata"]["name"], path)
        self.assertEqual(kinds, {"Pod", "Service"})

    def test_flags_are_the_binary_s(self):
        words = {c: subprocess.run([os.environ["CAPSTAN_BIN"], c, "--help"], capture_output=True, text=True, check=True).stdout
                 for c in ("serve", "pull")}
        seen = 0
        for path, _, c in containers():
            args = c.get("command", [])[1:] + c.get("args", [])
            for flag in args[1:]:
                if flag.startswith("--"):
                    self.assertRegex(words[args[0]], r"(?m)^\s+" + re.escape(flag.split("=")[0]) + r"\b", f"{path}: {flag}")
                    seen += 1
        self.assertGreater(seen, 15)

    def test_probes_are_open_routes(self):
        probes = [p["httpGet"]["path"] for _, _, c in containers() for k, p in c.items() if k.endswith("Probe")]
        self.assertEqual(len(probes), 9)
        for path in probes:
            self.assertRegex(ROUTES, rf'"{path}", OPEN')

    def test_containers_may_nothing(self):
        for path, _, c in containers():
            s = c["securityContext"]
            self.assertEqual((s["allowPrivilegeEscalation"], s["readOnlyRootFilesystem"], s["capabilities"]), (False, True, {"drop": ["ALL"]}), path)

    def test_a_pod_has_time_to_end(self):
        """preStop, grace and what runs: less than what the pod is given."""
        graces = [d["spec"].get("terminationGracePeriodSeconds") or d["spec"].get("predictor", {}).get("terminationGracePeriodSeconds")
                  for _, d in documents()]
        graces = [g for g in graces if g]
        self.assertEqual(len(graces), 4)
        for path, _, c in containers():
            times = {m[1]: int(m[2]) for a in c.get("args", []) if (m := re.match(r"--drain-(grace|timeout)=(\d+)s", a))}
            if times:
                stop = c.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                self.assertLess(stop + sum(times.values()), min(graces), path)

    def test_the_two_runtimes_differ_in_kind_alone(self):
        one, other = [(DEPLOY / "kserve" / n).read_text().split("\n", 1)[1] for n in ("runtime.yaml", "cluster-runtime.yaml")]
        self.assertEqual(one.replace("kind: ServingRuntime", "kind: ClusterServingRuntime"), other)


if __name__ == "__main__":
    unittest.main(verbosity=2)
