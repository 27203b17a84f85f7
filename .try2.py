import time

from tests.oracles.downstream import load
from tests.ssmjax.dense.test_retinanet import *

case=load('retinanet_tiny_a')
model, targets = whole.model_of(case), whole.targets_of(case)
t=time.time()
low=whole.step.lower(model, case.images, targets); print('trace',time.time()-t)
for o in ({"xla_backend_optimization_level":0},{"xla_llvm_disable_expensive_passes":True},{"xla_cpu_use_thunk_runtime":True} ):
    try:
        t=time.time(); c=low.compile(o); print(o,'compile',time.time()-t,flush=True)
        t=time.time(); c(model, case.images, targets); print(time.time()-t,flush=True)
    except Exception as e: print(o,str(e)[:200])
