"""Who the tests act as, and the `openstack` command and openstacksdk as they have them."""
import contextlib
import io
import json
import logging
import shlex

import openstack
from openstackclient.shell import OpenStackShell
from osc_lib.clientmanager import ClientCache, ClientManager

PASSWORD = "secret"
REGION = "RegionOne"


class Person:
    """A user in a project, with both clients."""

    def __init__(self, keystone, user, project):
        self.name, self.project = user, project
        self._auth = {"auth_url": keystone, "username": user, "password": PASSWORD, "project_name": project,
                      "user_domain_id": "default", "project_domain_id": "default"}
        self.sdk = openstack.connect(**self._auth, region_name=REGION, app_name="alcor-clients")
        self.project_id = self.sdk.current_project_id
        self.net = self.sdk.network

    def _run(self, words):
        """The command as a process would run it, without the second that Python takes to start."""
        out, err = io.StringIO(), io.StringIO()
        # The command keeps its connections for the whole process: the next one would act as the former person.
        for kept in vars(ClientManager).values():
            if isinstance(kept, ClientCache):
                kept._handle = None
        access = [f"--os-{name.replace('_', '-')}={value}" for name, value in self._auth.items()]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = OpenStackShell().run(access + [f"--os-region-name={REGION}"] + words)
            except SystemExit as end:
                code = end.code
        # Each run of the command adds handlers that write to what was standard error then.
        for handler in list(logging.getLogger().handlers):
            logging.getLogger().removeHandler(handler)
        return code, out.getvalue(), err.getvalue()

    def __call__(self, line):
        """Runs a command that must succeed; gives what it printed, as JSON where the command can."""
        words = shlex.split(line)
        prints = {"create", "show", "list"} & set(words)
        code, out, err = self._run(words + (["-f", "json"] if prints else []))
        assert not code, f"{self.name}: openstack {line}: exit {code}\n{out}{err}"
        return json.loads(out) if prints else out

    def refused(self, line, *said):
        """Runs a command that must fail; one of these texts must be in what it says."""
        code, out, err = self._run(shlex.split(line))
        assert code, f"{self.name}: openstack {line}: should be refused, printed {out}"
        told = out + err
        assert "Traceback" not in told and "HttpException: 5" not in told, f"openstack {line}: {told}"
        assert not said or any(text in told for text in said), f"openstack {line}: said {told!r}, not {said}"
