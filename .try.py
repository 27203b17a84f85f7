import time

from tests.oracles.downstream import load
from tests.ssmjax.dense.test_retinanet import *

case=load('retinanet_l1_a')
t=time.time()
model, targets = whole.model_of(case), whole.targets_of(case)
(maps, said, losses, found), _ = evaluated(model, case.images, targets)
print(time.time()-t)
w=case.want['det0.boxes_scores']
got=np.concatenate([found.boxes[0],found.scores[0][:,None]],1)
d=np.abs(got[:,None]-w).max(-1)
print(d.min(0), d.min(0).max()/w.max(), found.valid.sum())
print((np.asarray(found.labels[0])==case.want['det0.labels']).mean(), w[:10], got[:10])
case=load('retinanet_tiny_a')
model, targets = whole.model_of(case), whole.targets_of(case)
t=time.time()
low=whole.step.lower(model, case.images, targets); print('trace',time.time()-t)
t=time.time(); c=low.compile(); print('compile',time.time()-t)
print(len(low.as_text()))
t=time.time(); c(model, case.images, targets); print(time.time()-t)
