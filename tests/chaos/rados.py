"""A Ceph cluster of one monitor, one disk and a RADOS gateway on loopback, which can crash and come back. Needs root."""

import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from servers import BUCKET, free_port, wait_for

from intent.storage import StorageOptions, open_store

PACKAGES = ("radosgw", "ceph-osd", "ceph-mon")
# The credentials that `s3_endpoint` puts into the environment.
USER = ("--uid=chaos", "--display-name=chaos", "--access-key=test", "--secret-key=test")
CONFIG = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{mon}/0
mon_initial_members = a
public_network = 127.0.0.0/8
ms_bind_msgr1 = false
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/rgw
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_objectstore = bluestore
osd_memory_target = 943718400
bluestore_block_size = 21474836480
rgw_frontends = beast endpoint=127.0.0.1:{gateway}
"""
CAPABILITIES = {
    "mon.": ["mon", "allow *"],
    "client.admin": ["mon", "allow *", "osd", "allow *", "mgr", "allow *"],
    "osd.0": ["mon", "allow profile osd", "osd", "allow *"],
    "client.rgw": ["mon", "allow rwx", "osd", "allow rwx"],
}


def _install() -> None:
    if not all(shutil.which(program) for program in PACKAGES):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES], check=True)


class Rados:
    def __init__(self):
        self.folder, self.daemons = Path(tempfile.mkdtemp(prefix="rados-")), []
        self.fsid, self.mon, gateway = str(uuid.uuid4()), free_port(), free_port()
        self.options = StorageOptions(endpoint=f"http://127.0.0.1:{gateway}", region="us-east-1")
        text = CONFIG.format(fsid=self.fsid, folder=self.folder, mon=self.mon, gateway=gateway)
        (self.folder / "ceph.conf").write_text(text)
        for name in ("mon", "osd", "rgw"):
            (self.folder / name).mkdir()

    def create(self) -> None:
        _install()
        keyring, monmap, osd = self.folder / "keyring", self.folder / "monmap", str(uuid.uuid4())
        keyring.touch()
        for name, words in CAPABILITIES.items():
            caps = [
                word for kind, permission in zip(words[::2], words[1::2], strict=True) for word in ("--cap", kind, permission)
            ]
            _run("ceph-authtool", keyring, "--gen-key", "-n", name, *caps)
        _run("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{self.mon}/0]", "--fsid", self.fsid, monmap)
        self._ceph("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._start("ceph-mon", "-i", "a")
        self._ceph("ceph", "osd", "new", osd)
        self._ceph("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        self._start("ceph-osd", "-i", "0")
        self._ceph("radosgw-admin", "user", "create", *USER)
        self._serve()
        open_store(f"s3://{BUCKET}", self.options).client.create_bucket(Bucket=BUCKET)

    def crash(self) -> None:
        """SIGKILL to every daemon, all at once."""
        for daemon in self.daemons:
            daemon.kill()
        for daemon in self.daemons:
            daemon.wait()
        self.daemons = []

    def restart(self) -> None:
        self._start("ceph-mon", "-i", "a")
        self._start("ceph-osd", "-i", "0")
        self._serve()

    def remove(self) -> None:
        self.crash()
        shutil.rmtree(self.folder)

    def _serve(self) -> None:
        self._start("radosgw", "-n", "client.rgw")
        wait_for(self.options.endpoint, 60)

    def _ceph(self, program: str, *arguments) -> None:
        _run(program, "-c", self.folder / "ceph.conf", *arguments)

    def _start(self, program: str, *arguments: str) -> None:
        command = [program, "-f", "-c", str(self.folder / "ceph.conf"), *arguments]
        self.daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def _run(*command) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
